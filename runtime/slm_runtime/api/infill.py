"""POST /infill, as llama-server's users ask it: editors that complete code where the cursor is."""

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta
from typing_extensions import override

from slm_contract.config import PromptParameters
from slm_runtime.api.answering import Gathered, generating
from slm_runtime.api.delivery import Answer, deliver
from slm_runtime.api.http import sse
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import ApiError
from slm_runtime.api.infilling import Extra, infill_prompt, require_infill
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.sampling import first
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import ChoiceFinished, Delta, GenerateRequest, RequestFinished, Sampling

_STOPS: Final = 64
_EXTRAS: Final = 256


class ExtraFile(msgspec.Struct, kw_only=True):
    text: str
    filename: str = "file"


class InfillRequest(msgspec.Struct, kw_only=True):
    """What isn't named here has no effect: `samplers`, `id_slot`, `n_indent`, `t_max_predict_ms`, `cache_prompt`, ..."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], Meta(max_length=_EXTRAS)] = []
    prompt: str = ""
    """What follows the prefix; editors send the line up to the cursor by itself."""
    model: str | None = None
    n_predict: Annotated[int, Meta(ge=-2, le=2**31)] | None = None
    stop: Annotated[list[str], Meta(max_length=_STOPS)] | None = None
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_k: int | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=2**31)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    response_fields: Annotated[list[str], Meta(max_length=64)] | None = None
    """Only these are told, by their paths (`timings/prompt_n`)."""

    def sampling(self, defaults: PromptParameters) -> Sampling:
        """With llama-server's defaults."""
        seed = first(self.seed, defaults.seed, -1)
        return Sampling(
            temperature=first(self.temperature, defaults.temperature, 0.8),
            top_k=max(0, first(self.top_k, defaults.top_k, 40)),
            top_p=first(self.top_p, defaults.top_p, 0.95),
            min_p=first(self.min_p, defaults.min_p, 0.05),
            typical_p=max(1e-6, first(self.typical_p, defaults.typical_p, 1.0)),
            repeat_penalty=first(self.repeat_penalty, defaults.repeat_penalty, 1.0),
            frequency_penalty=first(self.frequency_penalty, defaults.frequency_penalty, 0.0),
            presence_penalty=first(self.presence_penalty, defaults.presence_penalty, 0.0),
            penalty_window=first(self.repeat_last_n, defaults.repeat_last_n, 64),
            penalize_prompt=True,
            seed=seed if 0 <= seed < 2**32 - 1 else None,
        )

    @property
    def max_tokens(self) -> int | None:
        """0 is how editors have a prompt read ahead: a token is made for it, and not told."""
        return None if self.n_predict is None or self.n_predict < 0 else max(1, self.n_predict)


async def create(serving: Serving, exchange: Exchange) -> None:
    try:
        wanted = msgspec.convert(await exchange.json(), InfillRequest)
    except msgspec.ValidationError as error:
        raise fields.invalid(error) from None
    marks = require_infill(serving, "model")
    # Editors name whatever their settings say; another model isn't what they want to be refused for.
    served = serving.find(wanted.model or "") or serving.served[0]
    limit = first(wanted.max_tokens, serving.parameters.max_tokens, None)
    prompt = await infill_prompt(
        serving,
        marks,
        wanted.input_prefix + wanted.prompt,
        wanted.input_suffix,
        [Extra(each.filename, each.text) for each in wanted.input_extra],
        answer=limit,
    )
    request = GenerateRequest(
        prompt=[prompt],
        add_special=False,
        max_tokens=limit,
        sampling=wanted.sampling(serving.parameters),
        stop=serving.stop_strings(None if wanted.stop is None else [stop for stop in wanted.stop if stop]),
        adapter=served.adapter,
    )
    answer = _Infill(served.name, wanted)
    async with generating(serving, exchange, [request], {"max_tokens": "n_predict"}) as tracked:
        await deliver(exchange, tracked, answer, stream=wanted.stream)


class _Infill(Answer):
    """llama-server's own shape."""

    HEADERS: ClassVar = sse.HEADERS

    def __init__(self, model: str, wanted: InfillRequest) -> None:
        self._model = model
        self._fields = wanted.response_fields
        self._silent = wanted.n_predict == 0
        self._stop: dict[str, Any] = {}
        self._lines = False
        piece = {"index": 0, "content": sse.TextEvent.MARK, "tokens": [], "stop": False, "id_slot": -1}
        self._piece = sse.TextEvent(piece)

    @override
    def whole(self, gathered: Gathered) -> dict[str, Any]:
        (choice,) = gathered.choices
        text = "" if self._silent else choice.text
        self._lines = "\n" in text
        self._stop = _stop(choice.reason, choice.stop)
        return self._told(text, gathered.end)

    @override
    def sign(self) -> bytes:
        return sse.COMMENT

    @override
    def delta(self, delta: Delta) -> bytes:
        self._lines = self._lines or "\n" in delta.text
        return b"" if self._silent or not delta.text else self._piece.of(delta.text)

    @override
    def finish(self, finished: ChoiceFinished) -> bytes:
        self._stop = _stop(finished.reason, finished.stop)
        return b""

    @override
    def end(self, end: RequestFinished) -> bytes:
        return sse.event(self._told("", end))

    @override
    def failure(self, error: ApiError) -> bytes:
        return sse.event(error.openai())

    def _told(self, text: str, end: RequestFinished) -> dict[str, Any]:
        used, times = end.usage, end.timings
        document = {
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": -1,
            "stop": True,
            "model": self._model,
            "tokens_predicted": 0 if self._silent else used.completion_tokens,
            "tokens_evaluated": used.prompt_tokens,
            "has_new_line": self._lines,
            "truncated": False,
            **self._stop,
            "tokens_cached": used.prompt_tokens + used.completion_tokens,
            "timings": {
                "cache_n": used.cached_tokens,
                **_timing("prompt", used.prompt_tokens - used.cached_tokens, times.prefill),
                **_timing("predicted", used.completion_tokens, times.decode),
            },
        }
        return document if not self._fields else _chosen(document, self._fields)


def _stop(reason: str, stop: str | None) -> dict[str, Any]:
    kind = "limit" if reason == "length" else "word" if stop is not None else "eos"
    return {"stop_type": kind, "stopping_word": stop or ""}


def _timing(what: str, count: int, seconds: float) -> dict[str, Any]:
    milliseconds = seconds * 1000
    return {
        f"{what}_n": count,
        f"{what}_ms": milliseconds,
        f"{what}_per_token_ms": milliseconds / count if count else 0.0,
        f"{what}_per_second": count / seconds if seconds else 0.0,
    }


def _chosen(document: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    chosen = {}
    for path in paths:
        name, _, inner = path.partition("/")
        found = document.get(name, msgspec.UNSET)
        if inner:
            found = found.get(inner, msgspec.UNSET) if isinstance(found, dict) else msgspec.UNSET
        if found is not msgspec.UNSET:
            chosen[path] = found
    return chosen
