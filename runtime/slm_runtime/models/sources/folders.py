"""Which of a source's files are an ONNX model: a folder with a graph, its weights, tokenizer and configuration.

`genai_config.json` makes a folder one, as onnxruntime-genai's builder writes it; so does `config.json` with a graph
beside it or in `onnx/`, as Hugging Face's exporters write it. What an engine has no use for isn't brought.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from slm_contract.config import ModelFormat
from slm_runtime.errors import SourceInvalid, SourceNotFound
from slm_runtime.models.sources.asked import LATEST, Asked
from slm_runtime.models.sources.remote import OWN_FILES
from slm_runtime.models.sources.shards import Chosen, Listed, choose, fits, is_gguf, is_pattern, listed_words

GENAI: Final = "genai_config.json"
CONFIG: Final = "config.json"
GRAPH: Final = "model.onnx"
EXPORTED: Final = "onnx"
"""Where exporters put their graphs, below what these go with."""
_TEXTS: Final = re.compile(
    r"(?:[^/]+\.(?:json|jinja)|(?:vocab|merges)\.txt|(?:tokenizer|spiece|sentencepiece\.bpe)\.model|[0-9]_[^/]+/config\.json"
    r"|additional_chat_templates/[^/]+\.jinja)"
)
"""Configuration, template and tokenizer, and the modules of a sentence transformer: they are read whole."""


def is_graph(path: str) -> bool:
    return path.endswith(".onnx")


def is_weights(path: str) -> bool:
    """Whether a model's file holds weights alone, and a graph beside it says what they are."""
    return not is_graph(path) and (".onnx" in _base(path) or path.endswith(".data"))


def folder_of(graph: str) -> str:
    """Below which folder the rest of a graph's model lies."""
    folder = graph.rpartition("/")[0]
    return folder.rpartition("/")[0] if _base(folder) == EXPORTED else folder


def choose_model(files: Iterable[Listed], path: str | None, where: str, asked: Asked = LATEST) -> Chosen:
    """Choose the model that is meant: as :func:`choose` does, or a folder of ONNX where that is asked for or all there is.

    Parameters
    ----------
    path
        A graph, a folder, or a pattern that fits the folder; None: the only one there is.

    Raises
    ------
    SourceNotFound
    SourceInvalid
    """
    listed = list(files)
    sizes = {each.path: each.size for each in listed}
    named = path in sizes and not (path and is_graph(path))
    other = named or any(is_gguf(each) and fits(each, path) for each in sizes)
    folders = {} if asked.format is ModelFormat.GGUF else _folders(sizes, path)
    if asked.format is ModelFormat.ONNX and not folders:
        wanted = "" if path is None else f" that fits {path[:200]!r}"
        raise SourceNotFound(
            f"{where} has no ONNX model{wanted}: a folder with {GENAI}, or with {CONFIG} and {GRAPH}.",
            "Correct spec.model.source, or publish the whole folder there.",
        )
    if not folders or (other and asked.format is ModelFormat.AUTO):
        return choose(listed, path, where, asked)
    folder = min(folders, key=len)
    if any(not _below(each, folder) for each in folders):
        raise SourceInvalid(
            f"{where} has more than one ONNX model: {', '.join(sorted(folders)[:10])[:500]}.",
            "Name one of these folders in spec.model.source.",
        )
    return Chosen(tuple(_files(folder, folders[folder], sizes, path, where)), folder=folder)


def _folders(sizes: Mapping[str, int | None], path: str | None) -> dict[str, list[str]]:
    """Those that fit, with their graphs."""
    found: dict[str, list[str]] = {}
    for each in sorted(sizes):
        beside = each.rpartition("/")[0]
        folder = (
            beside if _join(beside, GENAI) in sizes or _join(beside, CONFIG) in sizes else folder_of(each)
        )
        whole = _join(folder, GENAI) in sizes or _join(folder, CONFIG) in sizes
        if is_graph(each) and whole and _is_meant(folder, each, path):
            found.setdefault(folder, []).append(each)
    return found


def _is_meant(folder: str, graph: str, path: str | None) -> bool:
    if path is None or path == graph:
        return True
    if not is_pattern(path):
        return _below(folder, path)
    pattern = path.lower()
    return any(fnmatchcase(each.lower(), pattern) for each in (folder, _base(folder), graph))


def _files(
    folder: str, graphs: Sequence[str], sizes: Mapping[str, int | None], path: str | None, where: str
) -> Iterator[str]:
    """All files that a folder's model consists of, its graph first."""
    usual = [each for each in graphs if _base(each) == GRAPH] or list(graphs)
    if _join(folder, GENAI) in sizes:
        # It says which graph is the decoder, and may name others.
        taken = [usual[0], *(each for each in graphs if each != usual[0])]
    elif len(usual) == 1 or path in usual:
        taken = [path] if path in usual and path is not None else usual
    else:
        raise SourceInvalid(
            f"{where} has more than one graph: {listed_words(graphs, sizes)}.",
            "Name one of them in spec.model.source.",
        )
    yield from taken
    others = [each for each in graphs if each not in taken]
    for each in sorted(sizes):
        name = each[len(folder) + 1 if folder else 0 :] if _below(each, folder) else ""
        hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
        weights = _belongs(each, taken) and not _belongs(each, others, exactly=True)
        if name and not hidden and name not in OWN_FILES and (weights or _TEXTS.fullmatch(name)):
            yield each


def _belongs(path: str, graphs: Sequence[str], *, exactly: bool = False) -> bool:
    """Whether a file may hold weights of graphs: it is called as one of them is and more, or its name ends in `.data`."""
    if is_graph(path):
        return False
    return any(
        path.startswith(each)
        or (not exactly and path.endswith(".data") and path.rpartition("/")[0] == each.rpartition("/")[0])
        for each in graphs
    )


def _below(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _base(path: str) -> str:
    return path.rpartition("/")[2]
