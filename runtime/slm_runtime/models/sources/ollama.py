"""`ollama://[host/][namespace/]name[:tag]`: a model in Ollama's registry, with what its Modelfile says of prompts."""

import contextlib
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pydantic import ValidationError

from slm_contract.config import PromptConfig, PromptMessage, PromptParameters
from slm_contract.gotemplate import TemplateRefused, passes_through, translate
from slm_runtime.errors import SourceInvalid, SourceNotFound, UnsupportedFormat
from slm_runtime.models.sources.artifact import PlainFile
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.ollama_tags import OllamaTags, Tagged
from slm_runtime.models.sources.registry import Descriptor, Manifest, Reference, Repository, open_repository
from slm_runtime.models.sources.remote import RemoteFile, RemoteModel, safe_path
from slm_runtime.models.sources.site import Site

SCHEME: Final = "ollama://"
REGISTRY: Final = "registry.ollama.ai"
MEDIA_TYPE: Final = "application/vnd.ollama.image."
PARAMETERS: Final[Mapping[str, str]] = {
    **{name: name for name in PromptParameters.model_fields},
    "num_predict": "max_tokens",
}
"""Ollama's names of what a request may say; others, such as `num_ctx`, are spec.runtime's business."""
MAX_STOPS: Final = 32
MAX_MESSAGES: Final = 64
MAX_NUMBER: Final = 1 << 31
_log = logging.getLogger("slm.source")


@contextmanager
def from_ollama(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    reference = _reference(uri, site)
    with open_repository(reference, SCHEME, site) as repository:
        tag, manifest, offered = _chosen(repository, reference, asked)
        layers = _by_kind(manifest, f"{SCHEME}{reference}")
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{_base(reference)}-{tag}")
        name = safe_path(f"{stem}.gguf")
        if asked.part is not None:
            where = f"{SCHEME}{reference}"
            yield _projector(repository, layers, f"{stem}-mmproj.gguf", manifest.digest, where)
            return
        parts = {name: layers["model"], **_adapters(manifest, name)}
        files = tuple(
            RemoteFile(path, PlainFile(path, repository.blob(layer)), layer.sha256)
            for path, layer in parts.items()
        )
        adapters = tuple(parts)[1:]
        variant = tag if tag != (reference.tag or "latest") else None
        yield RemoteModel(
            files, manifest.digest, variant, offered, prompt=_prompt(repository, layers), adapters=adapters
        )


def _reference(uri: str, site: Site) -> Reference:
    """Who is asked for what; the site may have a mirror for all of Ollama's registry, or for a host."""
    named = _parse(uri)
    if named.host == REGISTRY:
        short = f"{SCHEME}{named}".replace(f"{REGISTRY}/", "", 1)
        mirrored = site.route(short)
        if mirrored != short:
            return _parse(mirrored)
    return _parse(site.route(f"{SCHEME}{named}"))


def _parse(uri: str) -> Reference:
    """Read a name as Ollama does: what isn't said is its own registry, its library, and the tag `latest`."""
    parts = re.sub(r"^(ollama|oci)://", "", uri).split("/")
    if len(parts) == 1 or (len(parts) == 2 and not re.search(r"[.:]|^localhost$", parts[0])):
        parts = [REGISTRY, *parts]
    if len(parts) == 2:
        parts = [parts[0], "library", parts[1]]
    reference = Reference.parse("/".join(parts))
    if reference is None or reference.digest is not None:
        raise SourceInvalid(
            f"{uri!r} names no model of Ollama's registry.",
            "Write ollama://name:tag or ollama://namespace/name:tag.",
        )
    return Reference(reference.host, reference.repository, reference.tag or "latest")


def _chosen(repository: Repository, reference: Reference, asked: Asked) -> Tagged:
    tag = asked.variant or reference.tag or "latest"
    if asked.revision is not None:
        return Tagged(tag, _manifest(repository, tag, asked.revision))
    return OllamaTags(repository, f"{SCHEME}{reference}").choose(tag, asked)


def _manifest(repository: Repository, tag: str, revision: str) -> Manifest:
    """What the tag led to when that was pinned. By a digest Ollama's registry has manifests as blobs."""
    with contextlib.suppress(SourceNotFound):
        manifest = repository.manifest(tag)
        if manifest.digest == revision:
            return manifest
    return repository.pinned(revision, "blobs", "manifests")


def _by_kind(manifest: Manifest, where: str) -> dict[str, Descriptor]:
    """Ollama's layers; of each kind the last counts.

    Raises
    ------
    UnsupportedFormat
        What makes the model can't be served.
    """
    layers = {
        each.media_type.removeprefix(MEDIA_TYPE): each
        for each in manifest.layers
        if each.media_type.startswith(MEDIA_TYPE)
    }
    if "model" not in layers:
        kinds = ", ".join(dict.fromkeys(each.media_type[:80] for each in manifest.layers)) or "nothing"
        raise UnsupportedFormat(
            f"{where} has no GGUF model; it consists of {kinds}.",
            "Choose a model that Ollama has as a GGUF file.",
        )
    if "projector" in layers:
        _log.info(
            "The projector is fetched only where spec.model.projector asks for it",
            extra={"fields": {"source": where}},
        )
    return layers


def _projector(
    repository: Repository, layers: Mapping[str, Descriptor], name: str, revision: str, where: str
) -> RemoteModel:
    """What makes pictures a model's input, by a name of our own."""
    layer = layers.get("projector")
    if layer is None:
        raise SourceNotFound(
            f"{where} has no projector among its layers.",
            "Name one in spec.model.projector.source, or leave spec.model.projector out: the model reads text then.",
        )
    return RemoteModel((RemoteFile(name, PlainFile(name, repository.blob(layer)), layer.sha256),), revision)


def _adapters(manifest: Manifest, name: str) -> dict[str, Descriptor]:
    """What `ADAPTER` says in a Modelfile, by names of our own."""
    found = [each for each in manifest.layers if each.media_type == f"{MEDIA_TYPE}adapter"]
    stem = name.removesuffix(".gguf")
    return {f"{stem}-adapter-{number}.gguf": each for number, each in enumerate(found, 1)}


def _prompt(repository: Repository, layers: Mapping[str, Descriptor]) -> PromptConfig | None:
    """What the Modelfile says of prompts, as far as it can be read."""
    system = repository.document(layers["system"]).decode(errors="replace") if "system" in layers else None
    said = _json_object(repository.document(layers["params"])) if "params" in layers else {}
    stop = said.get("stop")
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    strings = tuple(each for each in stops if isinstance(each, str) and each)[:MAX_STOPS]
    told, messages = _messages(repository, layers)
    prompt = PromptConfig(
        system="\n\n".join(filter(None, (system, told))) or None,
        template=_template(repository, layers),
        stop=strings or None,
        parameters=_parameters(said),
        messages=messages or None,
    )
    return None if prompt == PromptConfig() else prompt


def _template(repository: Repository, layers: Mapping[str, Descriptor]) -> str | None:
    """Ollama's template as a chat template; None: the model's own counts.

    What passes the prompt through stands for a template that Ollama doesn't know, or has built into its program.
    """
    if "template" not in layers:
        return None
    text = repository.document(layers["template"]).decode(errors="replace")
    try:
        return None if passes_through(text) else translate(text)
    except TemplateRefused as error:
        _log.warning(
            "The template of the Modelfile can't be translated: the model's own chat template counts",
            extra={"fields": {"reason": str(error)}},
        )
        return None


def _messages(
    repository: Repository, layers: Mapping[str, Descriptor]
) -> tuple[str, tuple[PromptMessage, ...]]:
    """What the system messages among them say, and the turns, in their order."""
    said = _json(repository.document(layers["messages"])) if "messages" in layers else []
    told: list[str] = []
    turns: list[PromptMessage] = []
    for each in said[:MAX_MESSAGES] if isinstance(said, list) else ():
        match each:
            case {"role": "system", "content": str(content)}:
                told.append(content)
            case {"role": "user" | "assistant" as role, "content": str(content)}:
                turns.append(PromptMessage(role=role, content=content))
            case _:
                _log.warning("A message of the Modelfile can't be used")
    return "\n\n".join(told), tuple(turns)


def _parameters(said: Mapping[str, Any]) -> PromptParameters | None:
    """What of it can be; a value that can't doesn't keep the model from being served."""
    known: dict[str, Any] = {}
    for name, value in said.items():
        field = PARAMETERS.get(name)
        if field is None or value is None:
            continue
        try:
            number = getattr(PromptParameters.model_validate({field: value}), field)
        except ValidationError:
            number = math.inf
        if abs(number) < MAX_NUMBER:
            known[field] = number
        else:
            _log.warning("A parameter of the Modelfile can't be used", extra={"fields": {"parameter": name}})
    return PromptParameters(**known) if known else None


def _json(text: bytes) -> Any:
    """None: it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_object(text: bytes) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        _log.warning("The parameters of the Modelfile are no JSON object")
        return {}
    return value


def _base(reference: Reference) -> str:
    return reference.repository.rpartition("/")[2]
