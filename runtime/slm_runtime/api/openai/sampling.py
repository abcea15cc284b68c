"""The parameters that OpenAI's generating endpoints share, with OpenAI's defaults and bounds."""

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from slm_contract.config import PromptParameters
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai.structured import StructuredFields
from slm_runtime.engine.messages import Sampling

STOP_STRINGS: Final = 16

Unit = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepeatPenalty = Annotated[float, Meta(gt=0, le=10)]
StopString = Annotated[str, Meta(max_length=1000)]
Positive = Annotated[int, Meta(ge=1, le=2**31)]


_Value = TypeVar("_Value")


def first(asked: _Value | None, deployment: _Value | None, api: _Value) -> _Value:
    """The request's own word, else the deployment's, else what the API says."""
    if asked is not None:
        return asked
    return api if deployment is None else deployment


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class SamplingFields(StructuredFields, kw_only=True, forbid_unknown_fields=True):
    """How tokens are chosen, and for which form. None means absent; OpenAI takes an explicit null for that too."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=STOP_STRINGS)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31)] | None = None
    min_p: Unit | None = None
    typical_p: Unit | None = None
    repeat_penalty: RepeatPenalty | None = None
    repetition_penalty: RepeatPenalty | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=2**31)] | None = None
    stop_token_ids: (
        Annotated[list[Annotated[int, Meta(ge=0, lt=2**31)]], Meta(max_length=STOP_STRINGS)] | None
    ) = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None

    def stop_strings(self) -> list[str] | None:
        """An empty text in a list would stop nothing, and is what forms send for an empty line."""
        if self.stop is None:
            return None
        return [stop for stop in ([self.stop] if isinstance(self.stop, str) else self.stop) if stop]

    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage; what isn't streamed has it anyway."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, defaults: PromptParameters) -> Sampling:
        return Sampling(
            temperature=first(self.temperature, defaults.temperature, 1.0),
            top_k=max(0, first(self.top_k, defaults.top_k, 0)),
            top_p=first(self.top_p, defaults.top_p, 1.0),
            min_p=first(self.min_p, defaults.min_p, 0.0),
            typical_p=first(self.typical_p, defaults.typical_p, 1.0),
            repeat_penalty=first(
                first(self.repeat_penalty, self.repetition_penalty, None), defaults.repeat_penalty, 1.0
            ),
            frequency_penalty=first(self.frequency_penalty, defaults.frequency_penalty, 0.0),
            presence_penalty=first(self.presence_penalty, defaults.presence_penalty, 0.0),
            penalty_window=first(self.repeat_last_n, defaults.repeat_last_n, -1),
            repeat_in_prompt=self.repeat_penalty is None and self.repetition_penalty is not None,
            logit_bias=self._token_biases(),
            seed=first(self.seed, defaults.seed, None),
        )

    def _token_biases(self) -> dict[int, float]:
        biases = {}
        for token, bias in (self.logit_bias or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise BadRequest(
                    f"The keys of 'logit_bias' are token ids; {token[:50]!r} is none.", param="logit_bias"
                )
            biases[int(token)] = bias
        return biases
