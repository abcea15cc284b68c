"""The volumes of our pods: where the model lies, and what is mounted beside it."""

from typing import Any, Final

from slm_contract import places
from slm_contract.config import AuthMode, ModelConfig
from slm_contract.report import ModelFacts
from slm_contract.retention import Retention
from slm_contract.source import Mirror
from slm_operator.crd.cache import Cache, CacheMode
from slm_operator.crd.names import ca_bundle_name, claim_name, key_owner_entry, key_secret_name
from slm_operator.crd.quantities import MIB, memory_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.verification import Verification
from slm_operator.model.image import image_reference
from slm_operator.model.source import claim_of_source, lies_elsewhere
from slm_operator.settings import Settings

UNKNOWN_MODEL_VOLUME: Final = "32Gi"
"""The largest model that this operator is made for, in 32 bits, where its size isn't known yet."""
TMP_SIZE: Final = 256 * MIB
OWN_FILES: Final = 64 * MIB
"""What a model's volume has room for beside the model: records, links to a claim or an image, a header."""
SOURCE_VOLUME: Final = "source"
SHARED_GRACE: Final = 86400.0
"""Seconds from when nobody was found to serve a model: what others have in use isn't known here otherwise."""
KEY_OWNER_FILE: Final = ".owner"
"""A hidden file: the runtime takes no key from it."""


def uses_claim(cache: Cache) -> bool:
    """Whether the model is kept in a claim rather than in each pod."""
    asked = cache.claim_name is not None or cache.storage_class_name is not None
    return cache.mode is CacheMode.PVC or (cache.mode is CacheMode.AUTO and asked)


def on_node(cache: Cache, settings: Settings) -> bool:
    """Whether models are kept in a directory of the node; a site without one refuses the spec."""
    return cache.mode is CacheMode.NODE_LOCAL and settings.node_cache is not None


def node_retention(cache: Cache, settings: Settings) -> Retention | None:
    """What a fetch leaves in a node's directory, the same for every revision; None: everything, or it isn't there."""
    if not on_node(cache, settings) or cache.unused_models == "Retain":
        return None
    return Retention(keep=(), grace_seconds=SHARED_GRACE)


def shares_volumes(cache: Cache, artifact: ModelConfig) -> bool:
    """Whether pods on several nodes can have the model's volumes at once; a claim that is its source is only read."""
    many = "ReadWriteMany" in cache.access_modes
    return (not uses_claim(cache) or many or read_only(cache)) and (
        claim_of_source(artifact.source) is None or many or "ReadOnlyMany" in cache.access_modes
    )


def read_only(cache: Cache) -> bool:
    """Whether the model's volume is filled by others."""
    return uses_claim(cache) and set(cache.access_modes) == {"ReadOnlyMany"}


def one_pod_only(cache: Cache) -> bool:
    """Whether the model's volume can be had by a single pod at a time."""
    return uses_claim(cache) and cache.access_modes == ("ReadWriteOncePod",)


def claim_of(resource: SLMDeployment) -> str | None:
    """Name of the claim that the model is kept in."""
    cache = resource.spec.cache
    return (cache.claim_name or claim_name(resource.name)) if uses_claim(cache) else None


def fetch_volumes(
    settings: Settings,
    resource: SLMDeployment,
    artifact: ModelConfig,
    facts: ModelFacts | None,
    beside: int = 0,
) -> list[dict[str, Any]]:
    """The volumes of a container that fetches.

    Parameters
    ----------
    beside
        Bytes that are fetched with the artifact.
    """
    volumes: list[dict[str, Any]] = [
        _model_volume(resource, settings, artifact, facts, beside),
        {"name": "tmp", "emptyDir": {"sizeLimit": memory_quantity(TMP_SIZE)}},
    ]
    source = source_volume(settings, resource, artifact)
    if source is not None:
        volumes.append(source)
    credentials = resource.spec.model.credentials
    if credentials is not None:
        volumes.append(
            {
                "name": "credentials",
                "secret": {"secretName": credentials.secret_ref.name, "defaultMode": 0o440},
            }
        )
    ca = ca_source(settings, resource)
    if ca is not None:
        name, key = ca
        items = [{"key": key, "path": places.CA_BUNDLE.rpartition("/")[2]}]
        volumes.append({"name": "ca", "configMap": {"name": name, "items": items, "defaultMode": 0o444}})
    if resource.spec.model.verification is not None:
        volumes.append(_signers_volume(resource.spec.model.verification))
    if resource.spec.model.decryption is not None:
        reference = resource.spec.model.decryption.secret_ref
        items = [{"key": reference.key, "path": places.IDENTITIES.rpartition("/")[2]}]
        secret = {"secretName": reference.name, "items": items, "defaultMode": 0o440}
        volumes.append({"name": "identities", "secret": secret})
    return volumes


def source_volume(
    settings: Settings, resource: SLMDeployment, artifact: ModelConfig
) -> dict[str, Any] | None:
    """Where the model lies already: a claim, or an image; None where it is fetched, and to a look at an image's header."""
    claim = claim_of_source(artifact.source)
    if claim is not None:
        named = {"claimName": claim, "readOnly": True}
        return {"name": SOURCE_VOLUME, "persistentVolumeClaim": named}
    if not artifact.mounted:
        return None
    reference = image_reference(artifact, mirrors_of(settings, resource))
    if reference is None:
        return None
    return {"name": SOURCE_VOLUME, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}


def source_mounts(settings: Settings, resource: SLMDeployment, artifact: ModelConfig) -> list[dict[str, Any]]:
    """It is linked to there, so what serves it needs the volume as well."""
    if source_volume(settings, resource, artifact) is None:
        return []
    return [{"name": SOURCE_VOLUME, "mountPath": places.SOURCE_DIR, "readOnly": True}]


def mirrors_of(settings: Settings, resource: SLMDeployment) -> tuple[Mirror, ...]:
    """Of two for the same source the first counts."""
    own = (Mirror(source=each.source, mirror=each.mirror) for each in resource.spec.model.mirrors)
    of_site = (Mirror(source=each.source, mirror=each.mirror) for each in settings.fetch.mirrors)
    return (*own, *of_site)


def plain_volumes(resource: SLMDeployment, facts: ModelFacts | None) -> list[dict[str, Any]]:
    """Where an encrypted model lies in plain: in memory, and gone with the pod."""
    if resource.spec.model.decryption is None:
        return []
    limit = {} if facts is None else {"sizeLimit": memory_quantity(facts.size_bytes + MIB)}
    return [{"name": "plain", "emptyDir": {"medium": "Memory", **limit}}]


def key_volumes(resource: SLMDeployment, *, owned: bool) -> list[dict[str, Any]]:
    """The keys.

    Parameters
    ----------
    owned
        Whether a generated Secret has to show by its content that it is this SLMDeployment's; one that an earlier
        version made can't.
    """
    auth = resource.spec.auth
    if auth.mode is AuthMode.NONE:
        return []
    if auth.secret_ref is not None or not owned:
        name = auth.secret_ref.name if auth.secret_ref is not None else key_secret_name(resource.name)
        return [{"name": "keys", "secret": {"secretName": name, "defaultMode": 0o440, "optional": False}}]
    name = key_secret_name(resource.name)
    owner = {"key": key_owner_entry(resource.metadata.uid), "path": KEY_OWNER_FILE}
    sources = [
        {"secret": {"name": name, "optional": False}},
        {"secret": {"name": name, "items": [owner], "optional": False}},
    ]
    return [{"name": "keys", "projected": {"defaultMode": 0o440, "sources": sources}}]


def ca_source(settings: Settings, resource: SLMDeployment) -> tuple[str, str] | None:
    """ConfigMap and entry with the CAs for the sources."""
    own = resource.spec.model.ca_bundle
    if own is not None:
        return own.config_map_ref.name, own.config_map_ref.key
    if settings.fetch.ca_bundle is not None:
        return ca_bundle_name(resource.name), places.CA_BUNDLE.rpartition("/")[2]
    return None


def model_mount(settings: Settings, resource: SLMDeployment) -> dict[str, Any]:
    """The model volume in a container. Of a node's directory each namespace has a part that no other's pods see."""
    mount = {"name": "models", "mountPath": places.MODEL_DIR}
    if on_node(resource.spec.cache, settings):
        mount["subPath"] = resource.metadata.namespace
    return mount


def _model_volume(
    resource: SLMDeployment,
    settings: Settings,
    artifact: ModelConfig,
    facts: ModelFacts | None,
    beside: int,
) -> dict[str, Any]:
    cache, claim = resource.spec.cache, claim_of(resource)
    if claim is not None:
        source = {"claimName": claim, **({"readOnly": True} if read_only(cache) else {})}
        return {"name": "models", "persistentVolumeClaim": source}
    if on_node(cache, settings):
        # A site prepares it: one that kubelet made would be root's.
        return {"name": "models", "hostPath": {"path": settings.node_cache, "type": "Directory"}}
    if cache.size is not None:
        limit = str(cache.size)
    elif facts is not None:
        limit = memory_quantity(_room(artifact, facts) + _with_slack(beside))
    elif _is_linked(artifact):
        limit = memory_quantity(OWN_FILES + _with_slack(beside))
    else:
        limit = UNKNOWN_MODEL_VOLUME
    return {"name": "models", "emptyDir": {"sizeLimit": limit}}


def _signers_volume(verification: Verification) -> dict[str, Any]:
    """Only the entry that is named: the Secret of a public key may hold the private one too."""
    reference = verification.signers
    kind, name = ("configMap", "name") if verification.in_config_map else ("secret", "secretName")
    items = [{"key": reference.key, "path": places.SIGNERS.rpartition("/")[2]}]
    return {"name": "signers", kind: {name: reference.name, "items": items, "defaultMode": 0o440}}


def disk_wanted(
    resource: SLMDeployment, artifact: ModelConfig, facts: ModelFacts | None, beside: int = 0
) -> int:
    """Bytes that the pod's own volumes take of its node's disk, so that it is placed where there is room.

    A model whose size isn't known counts nothing: its volume's limit is a bound, and asking for that would keep the pod off
    most nodes. There is no limit on the whole: kubelet would evict for it what serves.
    """
    cache = resource.spec.cache
    if uses_claim(cache) or cache.mode is CacheMode.NODE_LOCAL:
        return TMP_SIZE
    own = 0 if facts is None or _is_linked(artifact) else _room(artifact, facts)
    return TMP_SIZE + own + _with_slack(beside)


def _is_linked(artifact: ModelConfig) -> bool:
    """Whether all of the model is served where it lies already."""
    return lies_elsewhere(artifact) and artifact.quantization is None


def _room(artifact: ModelConfig, facts: ModelFacts) -> int:
    """Bytes of a model's volume: for a moment it holds all that a model is made of.

    A member of a wheel is packed as a rule: then that is the wheel as well. What lies on a claim is linked to.
    """
    copies = 2 if artifact.source.startswith("pypi://") else 1
    whole = 0 if lies_elsewhere(artifact) else facts.source_bytes
    derived = 0 if facts.origin is None else facts.size_bytes
    return copies * whole + derived + (whole + derived) // 8 + OWN_FILES


def _with_slack(size: int) -> int:
    return size + size // 8
