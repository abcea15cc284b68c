"""What a plan needs to know of a site: the operator's settings, nodes, headers that were read; of files or a cluster."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from kubectl_slm.cluster import Cluster
from kubectl_slm.documents import CONFIG_FILE, operators_config, parse_yaml, read_yaml
from kubectl_slm.errors import CommandError, Exit
from slm_contract.config import ModelConfig
from slm_contract.report import FetchReport, ModelFacts
from slm_operator.crd.names import MANAGED_BY, MANAGED_BY_LABEL
from slm_operator.nodes import Node, Nodes
from slm_operator.settings import Settings

RUNTIME_IMAGE: Final = "slm-runtime"
"""Where nobody says which: a plan is the same whatever it is called."""


class Facts:
    """Headers of models, as inspections have read them."""

    def __init__(self) -> None:
        self._by_key: dict[str, ModelFacts] = {}
        self._by_source: dict[str, ModelFacts] = {}
        self._any: ModelFacts | None = None

    def known(self, artifact: ModelConfig) -> ModelFacts | None:
        return self._by_key.get(artifact.key) or self._by_source.get(artifact.source) or self._any

    def of_revisions(self, revisions: Iterable[Mapping[str, Any]]) -> None:
        """Take in what ControllerRevisions keep."""
        for each in revisions:
            for key, found in ((each.get("data") or {}).get("facts") or {}).items():
                try:
                    self._by_key[key] = ModelFacts.model_validate(found)
                except ValidationError:
                    # Another version's: it is as if nobody had read it.
                    continue

    def of_file(self, path: str) -> None:
        """Take in a report of `slm-runtime inspect`, or a map of sources to such reports.

        Raises
        ------
        CommandError
        """
        document = read_yaml(path)
        whole = _facts_of(document)
        if whole is not None:
            self._any = whole
            return
        found = {str(source): _facts_of(each) for source, each in dict(document).items()}
        if not found or None in found.values():
            raise CommandError(
                f"{path} holds no report of an inspection",
                "give it the termination message of an inspect Job's pod, or a map from sources to such",
                Exit.USAGE,
            )
        self._by_source |= {source: each for source, each in found.items() if each is not None}


def _facts_of(document: Any) -> ModelFacts | None:
    try:
        return FetchReport.model_validate(document).model
    except ValidationError:
        pass
    try:
        return ModelFacts.model_validate(document)
    except ValidationError:
        return None


def nodes_of(documents: Iterable[Mapping[str, Any]]) -> Nodes:
    """Nodes as the API server has them."""
    return Nodes.of(_node(each) for each in documents)


def _node(document: Mapping[str, Any]) -> Node:
    spec, status = document.get("spec") or {}, document.get("status") or {}
    return Node(
        name=document["metadata"]["name"],
        labels=document["metadata"].get("labels") or {},
        taints=tuple(
            {key: taint[key] for key in ("key", "value", "effect") if taint.get(key)}
            for taint in spec.get("taints") or ()
        ),
        allocatable=status.get("allocatable") or {},
        ready=any(
            each.get("type") == "Ready" and each.get("status") == "True"
            for each in status.get("conditions") or ()
        ),
        unschedulable=bool(spec.get("unschedulable")),
    )


def settings_of(document: Mapping[str, Any], where: str) -> Settings:
    """Of the operator's own settings, of its ConfigMap, or of the chart's values.

    Raises
    ------
    CommandError
    """
    if document.get("kind") == "ConfigMap":
        return settings_of(parse_yaml((document.get("data") or {}).get(CONFIG_FILE, ""), where), where)
    raw = _from_values(document) if "hardwareClasses" in document else document
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CommandError(
            f"{where}: {place}: {first['msg']}",
            "give the chart's values, or the operator's settings as its ConfigMap has them",
            Exit.USAGE,
        ) from None


def settings_in(cluster: Cluster) -> Settings:
    """Of the operator that is installed.

    Raises
    ------
    CommandError
    """
    document, where = operators_config(cluster)
    return settings_of(document, where)


def revisions_in(cluster: Cluster) -> list[Mapping[str, Any]]:
    """What the operator keeps of what it has decided, as far as this user may see it."""
    selector = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
    for everywhere in (True, False):
        try:
            return list(cluster.get("controllerrevisions", everywhere=everywhere, selector=selector)["items"])
        except CommandError as error:
            if error.code is not Exit.FORBIDDEN:
                raise
    return []


def _from_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The operator's settings that the chart makes of its values: the part that decisions depend on."""
    runtime, fetch = values.get("runtime") or {}, values.get("fetch") or {}
    image = runtime.get("image") or {}
    ranked = sorted(
        (values.get("hardwareClasses") or {}).items(), key=lambda item: (item[1].get("order", 100), item[0])
    )
    mark = f"@{image['digest']}" if image.get("digest") else f":{image.get('tag') or 'latest'}"
    kept = {
        name: fetch[name] for name in ("allowedSources", "caBundle", "mirrors", "hosts") if fetch.get(name)
    }
    user, scaling = runtime.get("runAsUser", "Auto"), values.get("autoscaling") or {}
    return {
        "runtimeImage": f"{image['repository']}{mark}" if image.get("repository") else RUNTIME_IMAGE,
        "allowedImagePrefixes": runtime.get("allowedImagePrefixes") or [],
        "allowedServiceAccounts": runtime.get("allowedServiceAccounts") or [],
        **({"runAsUser": user} if isinstance(user, int) else {}),
        "classes": [_class(name, each, runtime) for name, each in ranked],
        "fetch": {
            **kept,
            "env": [{"name": name, "value": str(value)} for name, value in (fetch.get("env") or {}).items()],
        },
        "catalog": values.get("catalog") or {},
        **({"autoscaling": _autoscaling(scaling)} if scaling.get("enabled") else {}),
        "gateways": bool((values.get("gateway") or {}).get("enabled")),
        "nodeCache": (values.get("nodeCache") or {}).get("path") or None,
        "clusterDomain": values.get("clusterDomain") or "cluster.local",
    }


def _autoscaling(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "prometheus": "prometheusAddress",
        "authentication": "authentication",
        "authModes": "authModes",
    }
    return {key: values[name] for key, name in names.items() if values.get(name)}


def _class(name: str, values: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    architectures, image = runtime.get("architectures") or [], runtime.get("image") or {}
    left = {key: value for key, value in values.items() if key not in {"order", "variant"}}
    found = {"name": name, **left}
    if len(architectures) == 1 and not found.get("image"):
        found["nodeSelector"] = {"kubernetes.io/arch": architectures[0], **(found.get("nodeSelector") or {})}
    variant = values.get("variant")
    if variant in (runtime.get("variants") or []) and not found.get("image"):
        repository = image.get("repository") or RUNTIME_IMAGE
        found |= {"image": f"{repository}-{variant}:{image.get('tag') or 'latest'}", "provider": variant}
    return found
