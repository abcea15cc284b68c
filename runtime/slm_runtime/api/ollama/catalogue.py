"""What there is to serve: tags, show, ps; and the commands that are not for clients to carry out."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from slm_contract.report import ModelFacts
from slm_runtime.api.conversation.tool_formats import known_formats
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import NotFound, NotServed
from slm_runtime.api.ollama import ndjson
from slm_runtime.api.ollama.options import LONGEST, deployment_options
from slm_runtime.api.ollama.requests import parse, thinks
from slm_runtime.api.serving import Served, Serving
from slm_runtime.templates.chat import ChatFormat


class Named(msgspec.Struct, kw_only=True):
    model: str
    stream: bool | None = None
    verbose: bool | None = None


async def tags(serving: Serving, exchange: Exchange) -> None:
    shared: dict[str, Any] = {"modified_at": _timestamp(datetime.fromtimestamp(serving.created, UTC))}
    if serving.chat is not None:
        shared["capabilities"] = _capabilities(serving, serving.chat)
    await exchange.respond_json({"models": [{**_model(serving, each), **shared} for each in serving.served]})


async def ps(serving: Serving, exchange: Exchange) -> None:
    if serving.chat is None or serving.unloaded or serving.keep_alive == 0:
        await exchange.respond_json({"models": []})
        return
    info = serving.engine.info
    keep = timedelta(seconds=serving.keep_alive if serving.keep_alive >= 0 else LONGEST)
    size = info.memory.weights + info.memory.kv_cache + info.memory.compute
    running = {
        "size": size,
        "size_vram": size * info.layers_offloaded // max(1, info.layers_total),
        "expires_at": _timestamp(datetime.now(UTC) + keep),
        "context_length": info.context_length,
    }
    await exchange.respond_json({"models": [{**_model(serving, each), **running} for each in serving.served]})


async def show(serving: Serving, exchange: Exchange) -> None:
    wanted = await parse(exchange, Named)
    served = serving.require_model(wanted.model)
    chat, facts = serving.require_loaded(), serving.model
    architecture = facts.architecture
    model_info = {
        "general.architecture": architecture,
        "general.basename": served.name,
        "general.name": facts.name or served.name,
        "general.parameter_count": facts.parameter_count,
        # What is served: clients size their prompts by it.
        f"{architecture}.context_length": serving.engine.info.context_length,
        f"{architecture}.embedding_length": facts.embedding_length,
        f"{architecture}.block_count": facts.block_count,
        f"{architecture}.attention.head_count": facts.head_count,
        f"{architecture}.attention.head_count_kv": max(facts.kv_heads, default=0),
    }
    await exchange.respond_json(
        {
            "modelfile": _modelfile(serving, served),
            "parameters": "\n".join(f"{name:<30} {value}" for name, value in _parameters(serving)),
            "template": chat.template if serving.engine.info.generates else "",
            **({"system": chat.system} if chat.system is not None else {}),
            **({"messages": chat.examples} if chat.examples else {}),
            "details": _details(serving, served),
            "model_info": {key: value for key, value in model_info.items() if value is not None},
            "capabilities": _capabilities(serving, chat),
            "modified_at": _timestamp(datetime.fromtimestamp(serving.created, UTC)),
        }
    )


def _parameters(serving: Serving) -> list[tuple[str, str]]:
    """The context that requests get, and what the deployment says: a line each as a Modelfile has them."""
    return [
        ("num_ctx", str(serving.engine.info.context_length)),
        *(
            (name, msgspec.json.encode(one).decode())
            for name, value in deployment_options(serving.prompt).items()
            for one in (value if isinstance(value, list) else [value])
        ),
    ]


def _modelfile(serving: Serving, served: Served) -> str:
    prompt = serving.prompt
    adapters = (serving.config.adapters or ())[max(0, served.adapter - 1) : served.adapter]
    texts = [("TEMPLATE", prompt.template), ("SYSTEM", prompt.system)]
    lines = [
        f"FROM {serving.config.model.source}",
        *(f"ADAPTER {each.source}" for each in adapters),
        *(f'{word} """{text}"""' for word, text in texts if text is not None),
        *(f"PARAMETER {name} {value}" for name, value in _parameters(serving)),
        *(f'MESSAGE {each.role} """{each.content}"""' for each in prompt.messages or ()),
    ]
    return "\n".join(lines) + "\n"


async def pull(serving: Serving, exchange: Exchange) -> None:
    """What is served is there already; anything else is not for clients to fetch."""
    wanted = await parse(exchange, Named)
    if serving.find(wanted.model) is None:
        raise _declined(serving, f"pull {wanted.model[:200]!r}")
    if wanted.stream is False:
        await exchange.respond_json({"status": "success"})
        return
    digest, size = serving.model.sha256, serving.model.size_bytes
    layer = {"digest": f"sha256:{digest}", "total": size, "completed": size}
    lines = [
        {"status": "pulling manifest"},
        *([{"status": f"pulling {digest[:12]}", **layer}] if digest else []),
        *({"status": status} for status in ("verifying sha256 digest", "writing manifest", "success")),
    ]
    await exchange.respond(200, b"".join(ndjson.line(one) for one in lines), ndjson.HEADERS)


async def blob(_: Serving, exchange: Exchange) -> None:
    """No blob is here; a client that would send one is told so when it does."""
    raise NotFound(f"blob {exchange.path.rpartition('/')[2][:200]!r} not found")


async def decline(serving: Serving, exchange: Exchange) -> None:
    """Create, copy, delete, push, blobs."""
    command = exchange.path.split("/")[2]
    raise _declined(serving, "take blobs" if command == "blobs" else command)


def _declined(serving: Serving, what: str) -> NotServed:
    if serving.local:
        return NotServed(
            f"This server does not {what}: it serves {serving.name!r}. "
            "To serve another model, start it with another --source or --model."
        )
    return NotServed(
        f"This server is managed by Kubernetes and does not {what}: it serves {serving.name!r}. "
        f"To serve another model, edit spec.model of its SLMDeployment (kubectl get slm)."
    )


def _model(serving: Serving, served: Served) -> dict[str, Any]:
    facts = serving.facts(served)
    return {
        "name": served.tagged_name,
        "model": served.tagged_name,
        "size": facts.size_bytes,
        "digest": facts.sha256 or _digest_of_header(facts),
        "details": _details(serving, served),
    }


def _digest_of_header(facts: ModelFacts) -> str:
    """For a file whose checksum nobody has taken: reading all of it would take as long as a fetch."""
    return hashlib.sha256(facts.to_json().encode()).hexdigest()


def _details(serving: Serving, served: Served) -> dict[str, Any]:
    facts = serving.model
    return {
        "parent_model": serving.name if served.adapter else "",
        "format": facts.format.lower(),
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": _short(facts.parameter_count),
        "quantization_level": facts.quantization or "unknown",
    }


def _capabilities(serving: Serving, chat: ChatFormat) -> list[str]:
    """What clients may rely on: calls that come out as text would be none.

    As Ollama: a model that generates isn't told to embed, though it can; clients sort models by it.
    """
    if not serving.engine.info.generates:
        return ["embedding"] if serving.engine.info.embeds else []
    able = {
        "vision": chat.sees,
        "tools": bool(known_formats(chat)),
        "thinking": thinks(chat),
        "insert": serving.engine.info.infill is not None,
    }
    return ["completion", *(name for name, is_so in able.items() if is_so)]


def _short(count: int | None) -> str:
    """134515008 as people write it: 134.5M."""
    if count is None:
        return "unknown"
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _timestamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
