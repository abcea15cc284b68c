"""`slm-runtime convert`: an ONNX folder of a GGUF file or a Hugging Face folder."""

import signal
import sys
from pathlib import Path
from types import FrameType

from slm_runtime.errors import ConfigError, SourceNotFound


def convert_command(source: Path, target: Path, precision: str) -> int:
    """Convert, and say how far it is; cancelled it leaves nothing behind.

    Raises
    ------
    RuntimeFailure
    """
    signal.signal(signal.SIGTERM, _cancelled)
    try:
        from slm_runtime.converting.convert import convert
        from slm_runtime.converting.gguf_file import open_gguf
        from slm_runtime.converting.graph import Precision
        from slm_runtime.converting.hf_folder import open_folder
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Converting needs the package {error.name}, which isn't installed.",
            "Install it with `pip install 'slm-operator[convert]'`; the runtime's images don't have it.",
        ) from error
    if not source.exists():
        raise SourceNotFound(
            f"There is no {source}.", "Name a GGUF file, or a folder with config.json and safetensors."
        )
    opened = open_folder(source) if source.is_dir() else open_gguf(source)
    convert(opened, target, Precision(precision), lambda line: print(line, file=sys.stderr, flush=True))
    print(target)
    return 0


def _cancelled(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
