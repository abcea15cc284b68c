"""The parameters that OpenAI's generating endpoints share, with OpenAI's defaults and bounds."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from slm_runtime.api.errors import BadRequest
from slm_runtime.engine.messages import Sampling

STOP_STRINGS: Final = 16

Unit = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopString = Annotated[str, Meta(min_length=1, max_length=1000)]
Positive = Annotated[int, Meta(ge=1, le=2**31)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """None means absent; OpenAI takes an explicit null for that too."""

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
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    min_p: Unit | None = None
    typical_p: Unit | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None

    def stop_strings(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage.

        Raises
        ------
        BadRequest
            Stream options without a stream.
        """
        if self.stream_options is None:
            return False
        if not self.stream:
            raise BadRequest("'stream_options' is only allowed with 'stream': true.", param="stream_options")
        return bool(self.stream_options.include_usage)

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            typical_p=1.0 if self.typical_p is None else self.typical_p,
            repeat_penalty=1.0 if self.repeat_penalty is None else self.repeat_penalty,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=self._token_biases(),
            seed=self.seed,
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
