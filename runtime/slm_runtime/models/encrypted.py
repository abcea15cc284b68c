"""Models that are encrypted with age.

The ciphertext (`m.gguf.age`) is what a source has, what is transferred, verified and signed, and what lies on the model
volume. In plain the model is only in memory: a look at its header, and the files that an engine opens, in a volume of
memory that goes with the pod.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from slm_runtime.errors import ConfigError, DecryptionFailed, InvalidModel, ModelMissing
from slm_runtime.models.folder import FetchedModel

SUFFIX: Final = ".age"
MAGIC: Final = b"age-encryption.org/v1"
MAX_HEADER: Final = 1 << 16
"""Bytes; each recipient takes about 100."""
_NONCE: Final = 16
_CHUNK: Final = 1 << 16
_TAG: Final = 16
"""Behind each chunk of the payload."""
_WRITTEN: Final = 1 << 20
_HEADER_END: Final = b"\n--- "


def is_encrypted(path: str) -> bool:
    return path.endswith(SUFFIX)


class Identities:
    """Who may decrypt: what `age-keygen` writes."""

    def __init__(self, path: Path) -> None:
        """Read them.

        Raises
        ------
        DecryptionFailed
            There is no such file.
        ConfigError
            It holds none.
        """
        # Only who has an encrypted model needs it.
        from pyrage import IdentityError, x25519

        remedy = "Put what age-keygen writes into the entry that spec.model.decryption.secretRef names."
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
            self._all = [
                x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")
            ]
        except FileNotFoundError as error:
            raise DecryptionFailed(
                "The model is encrypted, and there is no identity to decrypt it with.",
                "Name the Secret with the age identity in spec.model.decryption.secretRef.",
            ) from error
        except (OSError, UnicodeDecodeError, IdentityError) as error:
            # Not what is wrong with it: that could quote a secret.
            raise ConfigError(f"The model is encrypted, and {path} holds no age identity.", remedy) from error
        if not self._all:
            raise ConfigError(f"The model is encrypted, and {path} is empty.", remedy)

    @contextmanager
    def plain(self, name: str, chunks: Iterable[bytes], size: int) -> Iterator[tuple[Iterator[bytes], int]]:
        """Decrypt a file as far as it is read; and its size in plain.

        Raises
        ------
        DecryptionFailed
        InvalidModel
            It isn't encrypted with age.
        """
        begun, rest = _begin(name, iter(chunks))
        reader = _Reader(begun, rest)
        plain_size = _plain_size(size - _header_length(name, begun))
        # The library pushes, and who reads a header pulls: a pipe between the two, so that neither gets ahead.
        readable, writable = os.pipe()
        thread = threading.Thread(target=self._push, args=(reader, writable), name="decrypt", daemon=True)
        thread.start()
        try:
            with os.fdopen(readable, "rb") as plain:
                yield self._pull(name, plain, reader), plain_size
        finally:
            thread.join()

    def write(self, source: Path, target: Path) -> None:
        """Decrypt a file; it has its name only when all of it is there and authentic.

        Raises
        ------
        DecryptionFailed
        """
        part = target.with_name(f".{target.name}")
        with source.open("rb") as ciphertext:
            reader = _Reader(b"", iter(lambda: ciphertext.read(_WRITTEN), b""))
            with part.open("wb", buffering=_WRITTEN) as plain:
                self._decrypt(reader, plain)
            if reader.failure is not None:
                part.unlink()
        reader.check(source.name)
        part.replace(target)

    def _decrypt(self, reader: "_Reader", writer: "_Writer") -> None:
        from pyrage import decrypt_io

        try:
            decrypt_io(reader, writer, self._all)
        except Exception as error:
            reader.failure = reader.failure or error

    def _push(self, reader: "_Reader", writable: int) -> None:
        with suppress(BrokenPipeError), os.fdopen(writable, "wb") as writer:
            self._decrypt(reader, writer)

    @staticmethod
    def _pull(name: str, plain: Any, reader: "_Reader") -> Iterator[bytes]:
        while chunk := plain.read1(_CHUNK):
            yield chunk
        reader.check(name)


def changed_at(identities: Path) -> str | None:
    """When they last changed: of secrets nothing else is written down."""
    try:
        return str(identities.stat().st_mtime_ns)
    except OSError:
        return None


@contextmanager
def in_plain(
    name: str, chunks: Iterator[bytes], size: int, identities: Path
) -> Iterator[tuple[Iterator[bytes], int]]:
    """Read a file's bytes, and its size, in plain; as they are where it isn't encrypted.

    Raises
    ------
    ConfigError
    DecryptionFailed
    InvalidModel
    """
    if not is_encrypted(name):
        yield chunks, size
        return
    with Identities(identities).plain(name, chunks, size) as plain:
        yield plain


class PlainVolume:
    """Where a pod has its model in plain: a volume of memory, mounted where a spec has a model decrypted."""

    def __init__(self, folder: Path, identities: Path) -> None:
        self._folder = folder
        self._identities = identities

    def fill(self, model: FetchedModel) -> None:
        """Decrypt a model's files, unless they are there; what isn't encrypted of it is linked to.

        Raises
        ------
        ConfigError
        DecryptionFailed
        """
        if not model.facts.encrypted or not self._folder.is_dir():
            return
        identities = Identities(self._identities)
        for each in model.facts.files:
            source, target = model.beside(each.path), self._folder / each.path.removesuffix(SUFFIX)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                continue
            if is_encrypted(each.path):
                identities.write(source, target)
            else:
                target.symlink_to(source)

    def path(self, model: FetchedModel) -> Path:
        """What an engine opens, of a model that may be encrypted.

        Raises
        ------
        ModelMissing
        """
        if not model.facts.encrypted:
            return model.path
        path = self._folder / model.facts.file_name.removesuffix(SUFFIX)
        if not path.exists():
            raise ModelMissing(
                f"{model.path.name} is encrypted, and there is no decrypted model in {self._folder}."
            )
        return path


class _Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Reader:
    """Chunks as a file; the library makes an error of its own of every failure, so the first is remembered."""

    def __init__(self, begun: bytes, rest: Iterator[bytes]) -> None:
        self._held = memoryview(begun)
        self._rest = rest
        self.failure: Exception | None = None

    def read(self, length: int = -1) -> bytes:
        try:
            while not self._held and (chunk := next(self._rest, None)) is not None:
                self._held = memoryview(chunk)
        except Exception as error:
            self.failure = error
            raise
        taken = bytes(self._held if length < 0 else self._held[:length])
        self._held = self._held[len(taken) :]
        return taken

    def check(self, name: str) -> None:
        """Raise what was remembered, in words where it is the library's."""
        failure = self.failure
        if failure is None:
            return
        from pyrage import DecryptError

        if isinstance(failure, DecryptError):
            raise DecryptionFailed(f"{name} can't be decrypted: {failure}.") from failure
        if isinstance(failure, OSError) and failure.errno is None:
            raise DecryptionFailed(f"{name} is damaged or cut off: {failure}.") from failure
        raise failure


def _begin(name: str, chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Read age's own header whole."""
    begun = bytearray()
    for chunk in chunks:
        begun += chunk
        if not begun.startswith(MAGIC[: len(begun)]) or _end(begun) or len(begun) > MAX_HEADER:
            break
    if not begun.startswith(MAGIC):
        raise InvalidModel(
            f"{name} starts with {bytes(begun[:4])!r}: it isn't encrypted with age, or is armored.",
            "Encrypt the model with `age -r RECIPIENT`, without --armor.",
        )
    return bytes(begun), chunks


def _header_length(name: str, begun: bytes) -> int:
    length = _end(begun)
    if not length:
        raise InvalidModel(f"{name} has no whole age header in its first {MAX_HEADER:,} bytes.")
    return length


def _end(begun: bytes | bytearray) -> int:
    """Where the header ends: behind the line that begins with three dashes; 0: not yet."""
    line = begun.find(_HEADER_END)
    return 0 if line < 0 else begun.find(b"\n", line + 1) + 1


def _plain_size(payload: int) -> int:
    """Of a payload of so many bytes: a nonce, then chunks with a tag each."""
    content = payload - _NONCE
    chunks = -(-content // (_CHUNK + _TAG))
    return max(0, content - chunks * _TAG)
