"""What the environment of an Ollama or Foundry server says, and where an SLMDeployment says it."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kubectl_slm.others.bounds import number
from kubectl_slm.others.converted import Draft
from kubectl_slm.others.foundry.hardware import prefer
from kubectl_slm.others.foundry.names import catalog_source

Setting = Callable[[Draft, int | None, str, str], None]
"""Takes the draft, the line, the variable and its value."""

_VARIABLE: Final = re.compile(
    r"""^\s*(?:export\s+|ENV\s+|set\s+|-\s*|Environment=)?["']?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*?)["']?\s*$"""
)
_ORIGIN: Final = re.compile(r"(\*|https?://[^/\s,*]+)")
_SWITCH: Final = {
    **dict.fromkeys(("1", "t", "true", "yes", "on"), "Enabled"),
    **dict.fromkeys(("0", "f", "false", "no", "off"), "Disabled"),
}


def variables(text: str) -> list[tuple[int, str, str]]:
    """Lines `NAME=value`, as shells, `.env` files, Dockerfiles and systemd have them: line, name and value."""
    found = []
    for line, each in enumerate(text.splitlines(), 1):
        match = None if each.lstrip().startswith("#") else _VARIABLE.match(each)
        if match:
            found.append((line, match["name"], match["value"].strip("\"'")))
    return found


def configure(draft: Draft, given: Iterable[tuple[int | None, str, str]]) -> None:
    """Put each variable where it belongs, or note why not."""
    for line, name, value in given:
        setting = SETTINGS.get(name.upper())
        if setting is None:
            draft.note(
                line,
                f"{name}={value}",
                "neither Ollama nor Foundry reads it; runtime.env gives pods variables of their own",
            )
        elif isinstance(setting, str):
            draft.note(line, f"{name}={value}", setting)
        else:
            setting(draft, line, name, value)


def _number(path: str, *default: str) -> Setting:
    def put(draft: Draft, line: int | None, name: str, value: str) -> None:
        if value in default:
            draft.note(line, f"{name}={value}", f"is what spec.{path} means where it is left out")
            return
        try:
            draft.put(path, number(path, value))
        except ValueError as error:
            draft.note(line, f"{name}={value}", str(error))

    return put


def _one_of(path: str, known: Mapping[str, str]) -> Setting:
    def put(draft: Draft, line: int | None, name: str, value: str) -> None:
        if value.lower() in known:
            draft.put(path, known[value.lower()])
        else:
            draft.note(
                line,
                f"{name}={value}",
                f"spec.{path} takes {', '.join(dict.fromkeys(known.values()))}; it was left out",
            )

    return put


def _host(draft: Draft, line: int | None, name: str, value: str) -> None:
    port = re.search(r":([0-9]+)/?$", value)
    if port:
        _number("endpoint.port")(draft, line, name, port[1])
    draft.note(
        line,
        f"{name}={value}",
        "pods listen on all of their addresses; who reaches them is spec.endpoint's and NetworkPolicies' business",
    )


def _keep_alive(draft: Draft, line: int | None, name: str, value: str) -> None:
    said = f"{value}s" if re.fullmatch(r"[0-9]+", value) else value
    if re.fullmatch(r"([0-9]+(h|m|s))+", said) and not re.fullmatch(r"(0+(h|m|s))+", said):
        draft.put("runtime.keepAlive", said)
        return
    why = "a model that leaves at once would be loaded for each request: write one such as 10m"
    if value.startswith("-"):
        why = "is what spec.runtime.keepAlive means where it is left out: the model stays"
    draft.note(line, f"{name}={value}", why)


def _origins(draft: Draft, line: int | None, name: str, value: str) -> None:
    said = [each.strip() for each in value.split(",") if each.strip()]
    kept = [each for each in dict.fromkeys(said) if _ORIGIN.fullmatch(each)][:32]
    if kept:
        draft.put("endpoint.cors.allowedOrigins", kept)
    for each in said:
        if each not in kept:
            draft.note(
                line,
                f"{name}={each}",
                "spec.endpoint.cors.allowedOrigins takes https://host:port each, or * for all",
            )


def _gpus(draft: Draft, line: int | None, name: str, value: str) -> None:
    draft.put("hardware.preference", ["cpu"] if value == "0" else ["gpu", "cpu"])
    draft.note(
        line,
        f"{name}={value}",
        "a GPU is asked for by spec.hardware.preference, which names what to fall back to",
    )


def _layers(draft: Draft, line: int | None, name: str, value: str) -> None:
    if value == "0":
        draft.put("hardware.preference", ["cpu"])
    else:
        _number("runtime.gpuLayers", "-1")(draft, line, name, value)


def _environment(draft: Draft, line: int | None, name: str, value: str) -> None:
    del line
    draft.put("runtime.env", [*(draft.get("runtime.env") or []), {"name": name, "value": value}])


def _foundry_model(draft: Draft, line: int | None, name: str, value: str) -> None:
    del name
    draft.put("model.source", catalog_source(draft, line, value))


def _foundry_hardware(draft: Draft, line: int | None, name: str, value: str) -> None:
    prefer(draft, line, name, re.split(r"[,\s]+", value.strip()))


_DEVICES: Final = (
    "the device plugin gives each pod devices of its own; spec.hardware.preference chooses the kind"
)
_CLASSES: Final = (
    "spec.hardware.preference says what a model runs on, and the hardware class names engine and image"
)
_INSIDE: Final = "requests never leave the pod; it asks nobody but the model's source"
_PROXY: Final = "fetches alone leave the cluster, by the proxy in fetch.env of the chart's values"
_TERMINAL: Final = "a setting of Ollama's own terminal"
_CACHE: Final = "where models are kept, and when unused ones go, is spec.cache's business"

SETTINGS: Final[Mapping[str, Setting | str]] = {
    "OLLAMA_HOST": _host,
    "OLLAMA_NUM_PARALLEL": _number("runtime.parallel", "0"),
    "OLLAMA_CONTEXT_LENGTH": _number("runtime.contextLength", "0"),
    "OLLAMA_KEEP_ALIVE": _keep_alive,
    "OLLAMA_ORIGINS": _origins,
    "OLLAMA_FLASH_ATTENTION": _one_of("runtime.flashAttention", _SWITCH),
    "OLLAMA_KV_CACHE_TYPE": _one_of("runtime.kvCacheType", {each: each for each in ("f16", "q8_0", "q4_0")}),
    "OLLAMA_NUM_THREAD": _number("runtime.threads", "0"),
    "OLLAMA_GPU_LAYERS": _layers,
    "OLLAMA_NUM_GPU": _gpus,
    "OLLAMA_MAX_LOADED_MODELS": "an SLMDeployment is one model, with pods and memory of its own",
    "OLLAMA_MAX_QUEUE": "128 requests wait in turn, by clients; one more gets a 429 with a Retry-After that is computed",
    "OLLAMA_MAX_VRAM": "memory is computed from the model's header; spec.runtime.kvCacheMemory bounds what grows",
    "OLLAMA_GPU_OVERHEAD": "memory is computed from the model's header; spec.resources asks for more",
    "OLLAMA_LOAD_TIMEOUT": "a load takes its time; what keeps a model from being loaded stands in the status",
    "OLLAMA_MODELS": _CACHE,
    "OLLAMA_NOPRUNE": _CACHE,
    "OLLAMA_DEBUG": "kubectl slm why and logs tell what happens; logLevel of the chart is the operator's",
    "OLLAMA_LLM_LIBRARY": _CLASSES,
    "OLLAMA_VULKAN": _CLASSES,
    "OLLAMA_INTEL_GPU": _CLASSES,
    "OLLAMA_NEW_ENGINE": "spec.runtime.engine names the engine; Auto takes that of the hardware class",
    "OLLAMA_SCHED_SPREAD": "a model lies on the devices that its pod has; spec.replicas makes more pods",
    "OLLAMA_MULTIUSER_CACHE": "prefixes are shared among all requests, always",
    "OLLAMA_AUTH": "a key is asked for unless spec.auth.mode is None",
    "OLLAMA_NO_CLOUD": _INSIDE,
    "OLLAMA_REMOTES": _INSIDE,
    "OLLAMA_NOHISTORY": _TERMINAL,
    "OLLAMA_EDITOR": _TERMINAL,
    "OLLAMA_TMPDIR": "pods write to nothing but the model's volume and memory",
    "OLLAMA_RUNNERS_DIR": "the engine is a part of the image",
    "HSA_OVERRIDE_GFX_VERSION": _environment,
    "CUDA_VISIBLE_DEVICES": _DEVICES,
    "NVIDIA_VISIBLE_DEVICES": _DEVICES,
    "HIP_VISIBLE_DEVICES": _DEVICES,
    "ROCR_VISIBLE_DEVICES": _DEVICES,
    "GGML_VK_VISIBLE_DEVICES": _DEVICES,
    "GPU_DEVICE_ORDINAL": _DEVICES,
    "HTTP_PROXY": _PROXY,
    "HTTPS_PROXY": _PROXY,
    "NO_PROXY": _PROXY,
    "FOUNDRY_MODEL": _foundry_model,
    "FOUNDRY_HARDWARE": _foundry_hardware,
}
"""All that Ollama's server reads, what people write for it, and Foundry's; a text is why it has no field."""
