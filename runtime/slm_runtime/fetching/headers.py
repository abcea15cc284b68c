"""What the headers of a source's files say, without transferring more than them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from slm_contract.report import ModelFacts
from slm_contract.source import ModelFile
from slm_runtime.models.encrypted import in_plain, is_encrypted
from slm_runtime.models.formats import read_facts
from slm_runtime.models.sources.folders import is_weights
from slm_runtime.models.sources.remote import RemoteModel


def remote_facts(remote: RemoteModel, identities: Path, copies: Path | None = None) -> ModelFacts:
    """Read the headers of all files, one after the other.

    Parameters
    ----------
    copies
        A folder for files that have the same headers, paths and sizes, and nothing else: they take no more room than that.

    Raises
    ------
    RuntimeFailure
    """
    with ExitStack() as stack:
        opened, listed = [], []
        for each in remote.files:
            # Of weights beside a graph the size is all that is asked for.
            limit = 1 if is_weights(each.path) else None
            chunks, size = stack.enter_context(each.artifact.head(limit))
            listed.append(ModelFile(path=each.path, size_bytes=size, sha256=each.sha256))
            plain, plain_size = stack.enter_context(in_plain(each.path, chunks, size, identities))
            if copies is not None:
                plain = _copied(plain, stack.enter_context(_sparse(copies / each.path, plain_size)))
            opened.append((each.path, plain_size, plain))
        facts = read_facts(opened, remote.adapters)
    encrypted = any(is_encrypted(each.path) for each in remote.files)
    return facts.model_copy(update={"files": tuple(listed), "encrypted": encrypted})


def _sparse(path: Path, size: int) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("wb")
    file.truncate(size)
    return file


def _copied(chunks: Iterator[bytes], copy: BinaryIO) -> Iterator[bytes]:
    for chunk in chunks:
        copy.write(chunk)
        yield chunk
