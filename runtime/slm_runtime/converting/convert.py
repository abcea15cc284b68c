"""Makes a folder: into a hidden one beside it, which gets its name when everything is there."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from slm_runtime.converting import data
from slm_runtime.converting.decoder import Decoder
from slm_runtime.converting.graph import Graph, Precision
from slm_runtime.errors import ConfigError
from slm_runtime.models.folder import storage_errors

MODEL: Final = "model.onnx"

Say = Callable[[str], None]


class Source(Protocol):
    """What is converted."""

    def decoder(self) -> Decoder: ...

    def texts(self, decoder: Decoder) -> Mapping[str, str | bytes]:
        """Files of the folder beside the graph, by name: tokenizer, template, configurations."""
        ...


def convert(source: Source, target: Path, precision: Precision, say: Say = lambda _: None) -> None:
    """Write a folder.

    Parameters
    ----------
    say
        Told in a sentence how far it is.

    Raises
    ------
    ConfigError
        Something is there already.
    ModelError
        The source can't be converted: before anything is written, but for damage that only its weights show.
    StorageError
    """
    target = target.absolute()
    with storage_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(
                f"{target} is there already.", "Name a folder that isn't there yet, or remove it."
            )
        decoder = source.decoder()
        texts = source.texts(decoder)
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            _write(decoder, made, precision, say)
            for name, text in texts.items():
                _put(made / name, text if isinstance(text, bytes) else text.encode())
            made.chmod(0o755)
            made.rename(target)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _write(decoder: Decoder, folder: Path, precision: Precision, say: Say) -> None:
    blocks = len(decoder.blocks)
    say(f"The vocabulary's matrix, then {blocks} blocks as {precision}.")
    with (folder / data.NAME).open("wb") as file:
        model = Graph(decoder, precision, data.DataFile(file)).build(
            lambda done: say(f"Block {done} of {blocks}: {file.tell():,} bytes.")
        )
        file.flush()
        os.fsync(file.fileno())
    _put(folder / MODEL, model.SerializeToString())


def _put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def as_json(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)
