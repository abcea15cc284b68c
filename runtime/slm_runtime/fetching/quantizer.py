"""The quantizing process: `python -m slm_runtime.fetching.quantizer SOURCE TARGET FILE_TYPE THREADS REQUANTIZE`.

It alone has the native library, which may die of a hostile file, and it ends when whoever started it does. Without a target
(`-`) it only says how large the weights would be, and reads no more than the file's header. Its last line is one of JSON.
"""

import ctypes
import json
import os
import re
import sys
import threading
from typing import Any, Final

from llama_cpp import llama_cpp as native

BUFFERS: Final = 32 << 20
"""Bytes of a tensor's rows that are in memory at once, in all formats: peak memory doesn't grow with the model."""
ERROR: Final = 4
MAX_ERROR: Final = 500
_PREFIX: Final = "llama_model_quantize: failed to quantize: "
_WEIGHTS: Final = re.compile(r"quant size\s*=\s*([\d.]+) MiB")


class _Log:
    """The library's: where it says how large the weights are, and why it failed."""

    def __init__(self) -> None:
        self.weights: int | None = None
        self.error: str | None = None
        # Kept here: the library calls it as long as it runs.
        self.callback = native.llama_log_callback(self._write)

    def _write(self, level: int, text: bytes, _user: Any) -> None:
        line = text.decode(errors="replace").strip()
        if weights := _WEIGHTS.search(line):
            self.weights = round(float(weights[1]) * 2**20)
        if level == ERROR and line:
            self.error = "".join(filter(str.isprintable, line.removeprefix(_PREFIX)))[:MAX_ERROR]


def main(source: str, target: str, file_type: str, threads: str, requantize: str) -> int:
    """Do it; return 0, or 1 where it failed."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    log = _Log()
    native.llama_log_set(log.callback, ctypes.c_void_p(0))
    native.llama_backend_init()
    parameters = native.llama_model_quantize_default_params()
    parameters.ftype = int(file_type)
    parameters.nthread = int(threads)
    parameters.allow_requantize = requantize == "1"
    parameters.dry_run = target == "-"
    parameters.max_buf_size = BUFFERS
    code = native.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    print(json.dumps({"weights": log.weights, "error": log.error}), flush=True)
    return 1 if code else 0


def _end_with_parent() -> None:
    """Its end of standard input closes when it ends, however that happens."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
