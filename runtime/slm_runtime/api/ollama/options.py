"""Ollama's `options`, with Ollama's defaults: unknown ones are ignored, wrong types are not."""

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from slm_contract.config import PromptConfig
from slm_runtime.api.conversation.schema import schema_text
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Constraint, Sampling

_KINDS: Final = {
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p"), "float32"),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), "float32"),
    **dict.fromkeys(("top_k", "repeat_last_n", "seed", "num_predict", "num_keep"), "integer"),
    # What follows is for the deployment to say, but of a type nevertheless.
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread"), "integer"),
    "use_mmap": "boolean",
    "stop": "array",
}
_LARGEST: Final = 2**63 - 1
_WHERE: Final = re.compile(r"at `\$\.(?P<option>\w+)")
_UNIT: Final = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_CHARACTERS: Final = 1000
"""Digits without a unit are read again from each of them on."""

FOREVER: Final = -1.0
LONGEST: Final = 100 * 365 * 86400.0


class Options(msgspec.Struct, kw_only=True):
    temperature: Annotated[float, Meta(ge=0)] = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: Annotated[float, Meta(gt=0)] = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1
    num_predict: int = -1
    num_keep: int = 4
    stop: str | list[str] = []

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            temperature_last=True,
            top_k=max(0, self.top_k),
            top_p=min(1.0, max(0.0, self.top_p)),
            min_p=min(1.0, max(0.0, self.min_p)),
            typical_p=min(1.0, max(1e-6, self.typical_p)),
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            penalty_window=max(-1, self.repeat_last_n),
            penalize_prompt=True,
            seed=None if self.seed < 0 else self.seed,
        )

    @property
    def max_tokens(self) -> int | None:
        return self.num_predict if self.num_predict > 0 else None

    @property
    def stop_strings(self) -> list[str]:
        return [stop for stop in ([self.stop] if isinstance(self.stop, str) else self.stop) if stop]


def deployment_options(prompt: PromptConfig) -> dict[str, Any]:
    """What the deployment says, in Ollama's words: those of a Modelfile's PARAMETER."""
    parameters = prompt.parameters.model_dump(exclude_none=True) if prompt.parameters else {}
    if "max_tokens" in parameters:
        parameters["num_predict"] = parameters.pop("max_tokens")
    return {**parameters, **({"stop": list(prompt.stop)} if prompt.stop else {})}


def parse_options(given: dict[str, Any] | None, prompt: PromptConfig) -> Options:
    """Read `options`; null is the default, which may be the deployment's.

    Raises
    ------
    BadRequest
    """
    present = {name: _typed(name, value) for name, value in (given or {}).items() if value is not None}
    try:
        return msgspec.convert({**deployment_options(prompt), **present}, Options)
    except msgspec.ValidationError as error:
        found = _WHERE.search(str(error))
        sentence = str(error).partition(" - at ")[0]
        name = found["option"] if found else "?"
        raise BadRequest(f'option "{name}" can\'t be used: {sentence}', param=f"options.{name}") from None


def _typed(name: str, value: Any) -> Any:
    """An option's value as Ollama takes it: whole numbers lose their fraction, as they do in Go."""
    kind = _KINDS.get(name)
    if kind in {"float32", "integer"} and isinstance(value, int | float) and not isinstance(value, bool):
        return value if kind == "float32" else int(min(_LARGEST, max(-_LARGEST, value)))
    if kind == "array" and isinstance(value, str | list):
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise BadRequest(f'option "{name}" must be of an array of strings', param=f"options.{name}")
        return value
    if kind is None or (kind == "boolean" and isinstance(value, bool)):
        return value
    raise BadRequest(f'option "{name}" must be of type {kind}', param=f"options.{name}")


def parse_format(given: str | dict[str, Any] | None) -> Constraint | None:
    """`format`: "json" or a JSON schema.

    Raises
    ------
    BadRequest
    """
    if given is None or given == "":
        return None
    if isinstance(given, dict):
        return Constraint("json_schema", schema_text(given, "format"))
    if given == "json":
        return Constraint("json_object")
    raise BadRequest(f'invalid format: {given[:50]!r}; expected "json" or a JSON schema', param="format")


def parse_keep_alive(given: float | str | None) -> float | None:
    """Seconds of a number or of Go's notation ("5m", "1h30m"); negative is for ever, None: not given.

    Raises
    ------
    BadRequest
    """
    if given is None or isinstance(given, float | int):
        return None if given is None else min(float(given), LONGEST)
    text = given.strip()
    sign, digits = (-1.0 if text.startswith("-") else 1.0), text[text[:1] in {"-", "+"} :]
    units = list(_UNIT.finditer(digits)) if len(digits) <= _DURATION_CHARACTERS else []
    if digits == "0":
        return 0.0
    if not units or "".join(unit[0] for unit in units) != digits:
        raise BadRequest(
            f'keep_alive: invalid duration {given[:50]!r}; write for example "5m"', param="keep_alive"
        )
    return min(sign * sum(float(unit["number"]) * _SECONDS[unit["unit"]] for unit in units), LONGEST)
