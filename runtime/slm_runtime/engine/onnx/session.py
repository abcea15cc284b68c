"""A graph that onnxruntime has loaded, and why it can't load one, in words for people."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from slm_runtime.engine.cpus import available_cpus
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import LoadFailureReason
from slm_runtime.engine.onnx.narrowing import narrowed

_SPIN_MICROSECONDS: Final = 20
"""For so long a thread looks out for the next piece of a step before it sleeps: as fast as one that never sleeps where each
has a core, and half as bad as that one where another process wants it too."""
_FATAL: Final = 4
"""Of its own words only these: all others are in what it raises."""
_WITHOUT_WEIGHTS: Final = 64 << 20
"""Bytes of a graph at most that it is changed in memory: of a larger one most are weights."""
_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_PROVIDERS: Final = ("CPUExecutionProvider",)

ELEMENTS: Final[Mapping[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}
"""Types of numbers that graphs are fed with, and give."""

_Explained = tuple[str, LoadFailureReason, str]
_REASONS: Final[tuple[_Explained, ...]] = (
    (
        r"External data path does not exist: \"?(?P<what>[^\"]+)",
        "InvalidModel",
        "its weights are missing: there is no {what}",
    ),
    (
        r"External initializer: (?P<what>\S+) offset",
        "InvalidModel",
        "the file of its weights is cut off: it ends before {what}",
    ),
    (
        r"escapes (?:both )?model directory.*?path: \"(?P<what>[^\"]*)\"",
        "InvalidModel",
        "it reads weights from outside its folder: {what}",
    ),
    (
        r"(?P<what>Absolute path) not allowed",
        "InvalidModel",
        "it reads weights from outside its folder: their place is an absolute path",
    ),
    (
        r"(?P<what>\S+?)\(-?\d+\) is not a registered function/op",
        "UnsupportedArchitecture",
        "it needs an operator that onnxruntime doesn't have: {what}",
    ),
    (
        r"(?P<what>Could not find an implementation for [^\n]+|NOT_IMPLEMENTED : [^\n]+)",
        "UnsupportedArchitecture",
        "the CPU can't compute a part of it: {what}",
    ),
    (r"was false\. (?P<what>[^\n]+)", "UnsupportedArchitecture", "onnxruntime refuses a part of it: {what}"),
    (r"(?P<what>bad_alloc|[Ff]ailed to allocate)", "OutOfMemory", "it doesn't fit into memory ({what})"),
    (r"(?P<what>[Pp]rotobuf parsing failed)", "InvalidModel", "it is no ONNX graph"),
)
"""What onnxruntime says, what that means for us, and for people."""


class Graph:
    """Loading takes seconds; a wrong file raises LoadError."""

    def __init__(self, path: Path, threads: int | None, logits: str | None = None) -> None:
        """`logits`: an output that need be given of some tokens only, where the graph can be changed to that."""
        self.name = path.name
        available = available_cpus()
        self.threads = threads or available
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        # What a step takes goes back to the system with it: kept, the longest prompt's would stay for good.
        options.enable_cpu_mem_arena = False
        crowded = self.threads > available
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if crowded else "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_MICROSECONDS))
        # A folder may be made of links to where the files lie; weights are looked for beside the graph itself.
        file = path.resolve()
        changed = None
        if logits is not None and file.stat().st_size <= _WITHOUT_WEIGHTS:
            changed = narrowed(file.read_bytes(), logits)
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(file.parent))
        try:
            self.session = ort.InferenceSession(changed or str(file), options, providers=list(_PROVIDERS))
        except Exception as error:  # onnxruntime's own have no common base, and it raises others, too
            raise refused(path.name, error) from error
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.outputs = {each.name: each for each in self.session.get_outputs()}

    def element(self, name: str) -> np.dtype[Any]:
        """Of what numbers an input or output is made."""
        kind = (self.inputs.get(name) or self.outputs[name]).type
        if kind not in ELEMENTS:
            raise self.unusable(f"{name} is a {kind}, which isn't handled here")
        return ELEMENTS[kind]

    def unusable(self, why: str) -> LoadError:
        return LoadError("UnsupportedArchitecture", f"{self.name} can't be served: {why}")


def refused(name: str, error: Exception) -> LoadError:
    """Why onnxruntime doesn't take a graph."""
    said = str(error)
    for pattern, reason, sentence in _REASONS:
        if found := re.search(pattern, said):
            return LoadError(reason, f"{name} can't be loaded: {sentence.format(what=found['what'])}")
    return LoadError("InvalidModel", f"{name} can't be loaded: {said}")
