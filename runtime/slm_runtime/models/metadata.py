"""Typed look-ups in a header's metadata, which answer a wrong type with a sentence."""

import math
from typing import Final

from slm_runtime.errors import InvalidModel
from slm_runtime.models.gguf import Array, Header, Skipped

MAX_NUMBER: Final = 1 << 31


class Metadata:
    def __init__(self, header: Header) -> None:
        self._values = header.metadata

    def has(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str | None:
        """Return a text; None where there is none, or a longer one than anybody needs."""
        value = self._values.get(key)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, Skipped):
            return None
        raise InvalidModel(f"{key} is no text.")

    def number(self, key: str, default: int | None = None) -> int:
        """Return a non-negative integer, or the default where the key is absent."""
        value = self._values.get(key, default)
        if value is None:
            raise InvalidModel(f"The GGUF file has no {key}: it is damaged, or no language model.")
        if type(value) is not int or (value < 0 and value != default) or value >= MAX_NUMBER:
            raise InvalidModel(f"{key} is {value!r}, no sensible number.")
        return value

    def factor(self, key: str) -> float | None:
        """Return a positive number, whole or not; None where there is none that makes sense."""
        value = self._values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) and 0 < value < MAX_NUMBER else None

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key, default)
        if isinstance(value, bool):
            return value
        raise InvalidModel(f"{key} is neither true nor false.")

    def largest(self, key: str, default: int | None = None) -> int:
        """Return a number, or the largest of one for each block."""
        value = self._values.get(key)
        if isinstance(value, Array):
            return max(self._numbers(key, value), default=0)
        return self.number(key, default)

    def each_block(self, key: str, blocks: int, default: int) -> tuple[int, ...]:
        """Return one number for each block, whether the file has one for all or one for each."""
        value = self._values.get(key)
        if isinstance(value, Array):
            numbers = self._numbers(key, value)
            if len(numbers) < blocks:
                raise InvalidModel(f"{key} has {len(numbers)} items for {blocks} blocks.")
            return numbers[:blocks]
        return (self.number(key, default),) * blocks

    def is_array(self, key: str) -> bool:
        return isinstance(self._values.get(key), Array)

    def length(self, key: str) -> int:
        value = self._values.get(key)
        return value.length if isinstance(value, Array) else 0

    def _numbers(self, key: str, value: Array) -> tuple[int, ...]:
        if value.values is None or any(not 0 <= item < MAX_NUMBER for item in value.values):
            raise InvalidModel(f"{key} is no list of sensible numbers.")
        return value.values
