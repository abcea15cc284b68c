"""llama.cpp's log: where it says how much memory it took, and why it could not."""

import ctypes
import logging
import re
import sys
from collections import deque
from typing import Any, Final

from llama_cpp import llama_cpp as native

log = logging.getLogger("llama.cpp")

_BUFFER: Final = re.compile(
    r"(?P<device>\S+)\s+(?P<kind>model|LoRA|KV|RS|compute|output) buffer size =\s*(?P<mib>[\d.]+) MiB"
)
_PROJECTOR: Final = re.compile(r"load_hparams: model size:\s+(?P<mib>[\d.]+) MiB")
_OFFLOADED: Final = re.compile(r"offloaded (\d+)/(\d+) layers")
_WINDOW_CELLS: Final = re.compile(r"creating +SWA KV cache, size = (\d+) cells")
_FLASH_ATTENTION: Final = re.compile(
    r"flash_attn\s+= (enabled|disabled)|Flash Attention (enabled|not supported)"
)
_CHATTER: Final = ("possible training context overflow", "model default pooling_type", "cannot use buft")
"""Warnings of what is meant: all sequences' cells are no sequence's context, we pool ourselves, and an adapter's weights
aren't repacked as the model's are."""
_LEVELS: Final = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}  # ggml's info is chatter

_CALLED: Final[list[Any]] = []
"""What the library was ever told to call: it may log until the process ends, so none of these is ever freed."""


class NativeLog:
    """Takes the library's log lines over; keeps the last ones, and the sizes that they tell."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        """By kind: model, projector, LoRA, KV, RS, compute, output."""
        self.layers = (0, 0)
        """Offloaded, and all that could be."""
        self.window_cells = sys.maxsize
        """Of the cache that only windowed blocks have, where there is one."""
        self.flash_attention = False
        """As it is, whatever was asked for."""
        self.errors: deque[str] = deque(maxlen=8)
        self._part = ""
        self.callback = native.llama_log_callback(self._write)
        _CALLED.append(self.callback)
        native.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _write(self, level: int, text: bytes, _user: Any) -> None:
        self._part += text.decode(errors="replace")
        if not self._part.endswith("\n"):
            return
        line, self._part = self._part.rstrip(), ""
        for match in _BUFFER.finditer(line):
            kind = match["kind"]
            self.bytes[kind] = self.bytes.get(kind, 0) + round(float(match["mib"]) * 2**20)
        if projector := _PROJECTOR.search(line):
            self.bytes["projector"] = round(float(projector["mib"]) * 2**20)
        if offloaded := _OFFLOADED.search(line):
            self.layers = (int(offloaded[1]), int(offloaded[2]))
        if made := _WINDOW_CELLS.search(line):
            self.window_cells = int(made[1])
        if decided := _FLASH_ATTENTION.search(line):
            self.flash_attention = "enabled" in decided.groups()
        if any(chatter in line for chatter in _CHATTER):
            return
        if level in (3, 4):
            self.errors.append(line)
        log.log(_LEVELS.get(level, logging.DEBUG), "%s", line)
