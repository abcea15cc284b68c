"""What `generate` and `chat` share of their requests."""

from typing import Any, Final, TypeVar

import msgspec

from slm_runtime.api.conversation.pictures import Content, Sent
from slm_runtime.api.conversation.thoughts import thoughts
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.ollama.ndjson import Kind, now
from slm_runtime.api.ollama.options import FOREVER, Options, parse_keep_alive, parse_options
from slm_runtime.api.serving import Serving
from slm_runtime.templates.chat import ChatFormat

_Request = TypeVar("_Request", bound=msgspec.Struct)

_LEVELS: Final = ("high", "medium", "low", "max")


class GeneratingRequest(msgspec.Struct, kw_only=True):
    """Ollama ignores unknown fields, and so do we here."""

    model: str
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.top_logprobs <= 20:
            raise ValueError("top_logprobs must be between 0 and 20")
        if isinstance(self.think, str) and self.think not in _LEVELS:
            raise ValueError(
                f'invalid think value: "{self.think[:50]}" '
                '(must be "high", "medium", "low", "max", true, or false)'
            )

    @property
    def streams(self) -> bool:
        return self.stream is not False

    def parsed_options(self, serving: Serving) -> Options:
        return parse_options(self.options, serving.prompt)

    def keep_on_overflow(self, options: Options) -> int | None:
        """Ollama cuts a prompt that is too long, unless told otherwise."""
        return None if self.truncate is False else max(0, options.num_keep)

    def logprob_count(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def template_variables(self, chat: ChatFormat) -> dict[str, Any]:
        """What the template is told of thinking.

        Raises
        ------
        BadRequest
            Thinking is asked of a model that doesn't.
        """
        if self.think is None:
            return {}
        if self.think and not thinks(chat):
            raise BadRequest(f'"{self.model}" does not support thinking', param="think")
        if isinstance(self.think, bool):
            return {"enable_thinking": self.think}
        # Templates know three levels.
        return {"enable_thinking": True, "reasoning_effort": "high" if self.think == "max" else self.think}


def thinks(chat: ChatFormat) -> bool:
    return thoughts(chat.template) is not None


async def parse(exchange: Exchange, kind: type[_Request]) -> _Request:
    """Read and check a request's body; as in Go, null is what isn't there.

    Raises
    ------
    BadRequest
    """
    document = {name: value for name, value in (await exchange.json()).items() if value is not None}
    # Older clients say `name`.
    document["model"] = document.get("model") or document.get("name")
    if not document["model"]:
        raise BadRequest("model is required", param="model")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$.")
        param = path.removesuffix("`") or None
        where = "" if param is None else f"{param}: "
        raise BadRequest(f"invalid request: {where}{sentence}", param=param) from None
    except RecursionError:
        raise BadRequest("invalid request: nested too deeply") from None


def shown(images: list[str] | None, text: str, where: str) -> Content:
    """A message of images and a text: as Ollama, these come first."""
    content = Content()
    for index, image in enumerate(images or []):
        content.show(Sent(image, f"{where}images[{index}]", uri=False))
    content.say(text)
    return content


def remember_keep_alive(serving: Serving, given: float | str | None) -> float | None:
    """Take what a client wishes for what `ps` shows: no client can unload the others' model.

    As Ollama: a wish holds for later requests that have none, but what was unloaded is loaded for as long as ever.
    """
    seconds = parse_keep_alive(given)
    if seconds is not None:
        serving.keep_alive = seconds if seconds >= 0 else FOREVER
    elif serving.keep_alive == 0:
        serving.keep_alive = FOREVER
    return seconds


async def answer_load(
    serving: Serving, exchange: Exchange, kind: Kind, model: str, keep_alive: float | None
) -> None:
    """An empty prompt means: load the model, or unload it. Only the first is done: others may be using it."""
    said: dict[str, Any] = (
        {"message": {"role": "assistant", "content": ""}} if kind == "chat" else {"response": ""}
    )
    reason = "unload" if keep_alive == 0 else "load"
    if reason == "load":
        await serving.engine.ready()
    head = {"model": model, "created_at": now()}
    await exchange.respond_json({**head, **said, "done": True, "done_reason": reason})
