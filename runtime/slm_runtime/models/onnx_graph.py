"""What an ONNX graph says of itself: what goes in and comes out, which number formats its weights have, and where they lie.

It is read in the wire format, as it comes: the package `onnx` would take the whole graph, weights included, into memory.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from slm_runtime.errors import InvalidModel, UnsupportedFormat
from slm_runtime.models.protobuf import LENGTH, Field, Stream

MAX_GRAPH: Final = 2 << 30
"""Bytes; what protobuf takes."""
MAX_NESTING: Final = 8
MAX_DIMENSIONS: Final = 16
MAX_SHOWN: Final = 120
DOMAINS: Final = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)
"""Of operators that onnxruntime brings itself."""
ELEMENTS: Final = {
    1: "fp32",
    10: "fp16",
    16: "bf16",
    2: "int8",
    3: "int8",
    21: "int4",
    22: "int4",
    11: "fp64",
}
"""Number formats, as TensorProto numbers them, that weights are in."""
_BITS: Final = {
    1: 32,
    2: 8,
    3: 8,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    16: 16,
    21: 4,
    22: 4,
}
_LAID_OUT: Final = "MatMulNBits"
_BLOCK_BYTES: Final = 8
"""Of a block that is laid out anew, beside its numbers: a scale and a sum."""
_PACKED: Final = {_LAID_OUT: 1, "GatherBlockQuantized": 0}
"""Operators whose weights are blocks of a few bits each, and which input these are."""


class Value(NamedTuple):
    """An input or output."""

    element: int
    """As TensorProto numbers them."""
    shape: tuple[int | str, ...]
    """Sizes, or their names where they aren't fixed."""


class External(NamedTuple):
    """Weights that lie in another file."""

    location: str
    offset: int
    length: int


@dataclass
class Graph:
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    external: list[External] = field(default_factory=list)
    embedded_bytes: int = 0
    """Of weights in the graph's own file."""
    elements: Counter[str] = field(default_factory=Counter)
    """Numbers of the weights, by their format."""
    resident_bytes: int = 0
    """Of weights in memory: kernels lay some out anew, a block with its scale and its sum, and let go of what was read."""
    widths: set[int] = field(default_factory=set)
    """Numbers that matrices of weights make of each token."""
    operators: Counter[str] = field(default_factory=Counter)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def weights_bytes(self) -> int:
        return self.embedded_bytes + sum(each.length for each in self.external)


class _Tensor(NamedTuple):
    name: str
    element: int
    dims: tuple[int, ...]
    bytes: int


def read_graph(chunks: Iterable[bytes], size: int, name: str) -> Graph:
    """Read a graph from its file's bytes.

    Raises
    ------
    InvalidModel
        It is damaged, or cut off.
    UnsupportedFormat
        It has operators of which onnxruntime knows nothing.
    """
    if size > MAX_GRAPH:
        raise InvalidModel(f"{name} has {size:,} bytes; an ONNX graph has {MAX_GRAPH:,} at most.")
    return _Reader(Stream(chunks, size, name), name).read()


class _Reader:
    def __init__(self, stream: Stream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._graph = Graph()
        self._tensors: list[_Tensor] = []
        self._bits: dict[str, int] = {}
        """Of packed weights, by their names."""
        self._scales: set[str] = set()
        self._laid_out: Counter[str] = Counter()
        """Weights that kernels lay out anew, blocks and scales, and how many kernels do."""
        self._read: set[str] = set()
        """Weights that are read where they lie."""
        self._foreign: dict[str, str] = {}
        """An operator of each domain that isn't known."""

    def read(self) -> Graph:
        stream, seen, own = self._stream, False, set()
        for each in stream.fields(stream.size):
            match each.number, each.kind:
                case 7, 2:
                    seen = True
                    self._read_graph(each.value, 0)
                case 14, 2:
                    key, value = self._pair(each.value)
                    self._graph.metadata[key] = value
                case 25, 2:
                    own.add(self._function(each.value))
                case _:
                    pass
        if not seen:
            raise InvalidModel(f"{self._name} is no ONNX graph: it has no nodes.")
        foreign = {domain: operator for domain, operator in self._foreign.items() if domain not in own}
        if foreign:
            domain, operator = next(iter(foreign.items()))
            raise UnsupportedFormat(
                f"{self._name} uses the operator {domain[:MAX_SHOWN]}.{operator[:MAX_SHOWN]}, which onnxruntime"
                " doesn't bring.",
                "Export the model without custom operators.",
            )
        self._weigh()
        return self._graph

    def _read_graph(self, length: int, nesting: int) -> None:
        if nesting > MAX_NESTING:
            raise InvalidModel(f"{self._name} has graphs in graphs, more than {MAX_NESTING} deep.")
        graph, top = self._graph, nesting == 0
        for each in self._stream.fields(length):
            match each.number, each.kind:
                case 1, 2:
                    self._node(each.value, nesting)
                case 5, 2:
                    self._tensors.append(self._tensor(each.value))
                case 11, 2 if top:
                    graph.inputs.update([self._value(each.value)])
                case 12, 2 if top:
                    graph.outputs.update([self._value(each.value)])
                case 15, 2:
                    for part in self._stream.fields(each.value):
                        if part.number in {1, 2} and part.kind == LENGTH:
                            self._tensors.append(self._tensor(part.value))
                case _:
                    pass

    def _node(self, length: int, nesting: int) -> None:
        inputs: list[str] = []
        operator = domain = ""
        bits = 0
        for each in self._stream.fields(length):
            match each.number, each.kind:
                case 1, 2:
                    inputs.append(self._stream.text(each))
                case 4, 2:
                    operator = self._stream.text(each)
                case 5, 2:
                    name, value = self._attribute(each.value, nesting)
                    bits = value if name == "bits" else bits
                case 7, 2:
                    domain = self._stream.text(each)
                case _:
                    pass
        self._graph.operators[operator] += 1
        if domain not in DOMAINS:
            self._foreign.setdefault(domain, operator)
        packed = _PACKED.get(operator)
        if packed is not None and packed < len(inputs):
            self._bits[inputs[packed]] = bits or 4
            self._scales.update(inputs[2:4])
        if operator == _LAID_OUT:
            self._laid_out.update(inputs[1:4])
        else:
            self._read.update(inputs)

    def _attribute(self, length: int, nesting: int) -> tuple[str, int]:
        name, value = "", 0
        for each in self._stream.fields(length):
            match each.number, each.kind:
                case 1, 2:
                    name = self._stream.text(each)
                case 3, 0:
                    value = each.value
                case ((5 | 10), 2):
                    self._tensors.append(self._tensor(each.value))
                case ((6 | 11), 2):
                    self._read_graph(each.value, nesting + 1)
                case _:
                    pass
        return name, value

    def _tensor(self, length: int) -> _Tensor:
        name, element, lying = "", 0, 0
        dims: list[int] = []
        outside: dict[str, str] = {}
        external = False
        for each in self._stream.fields(length):
            match each.number, each.kind:
                case 1, _:
                    dims += self._stream.numbers(each)
                case 2, 0:
                    element = each.value
                case 8, 2:
                    name = self._stream.text(each)
                case ((4 | 5 | 6 | 7 | 9 | 10 | 11), 2):
                    lying += each.value
                case 13, 2:
                    outside.update([self._pair(each.value)])
                case 14, 0:
                    external = each.value == 1
                case _:
                    pass
        if len(dims) > MAX_DIMENSIONS:
            raise InvalidModel(f"{self._name} has weights of {len(dims)} dimensions: it is damaged.")
        tensor = _Tensor(name, element, tuple(dims), math.prod(dims) * _BITS.get(element, 8) // 8)
        if external:
            self._graph.external.append(self._external(tensor, outside))
        else:
            self._graph.embedded_bytes += lying
        return tensor

    def _external(self, tensor: _Tensor, said: dict[str, str]) -> External:
        numbers = [said.get("offset", "0"), said.get("length", str(tensor.bytes))]
        if not all(each.isdecimal() and len(each) < 19 for each in numbers):
            raise InvalidModel(
                f"{self._name} doesn't say where the weights of {tensor.name[:MAX_SHOWN]!r} lie."
            )
        return External(said.get("location", ""), *map(int, numbers))

    def _value(self, length: int) -> tuple[str, Value]:
        name, element = "", 0
        shape: list[int | str] = []
        for each, depth in self._nested(length, ((2, 1), (1, 2), (2, 3), (1, 4))):
            match depth, each.number, each.kind:
                case 0, 1, 2:
                    name = self._stream.text(each)
                case 2, 1, 0:
                    element = each.value
                case 3, 1, 2:
                    shape.append("")
                case 4, 1, 0:
                    shape[-1] = each.value
                case 4, 2, 2:
                    shape[-1] = self._stream.text(each)
                case _:
                    pass
        return name, Value(element, tuple(shape))

    def _nested(
        self, length: int, way: tuple[tuple[int, int], ...], depth: int = 0
    ) -> Iterable[tuple[Field, int]]:
        """The fields of a message, and of those in it that lie on the way: a field's number for each depth."""
        for each in self._stream.fields(length):
            yield each, depth
            if each.kind == LENGTH and any(
                depth + 1 == deeper and number == each.number for number, deeper in way
            ):
                yield from self._nested(each.value, way, depth + 1)

    def _function(self, length: int) -> str:
        """The domain of an operator that the file itself defines, of others."""
        domain = ""
        for each in self._stream.fields(length):
            match each.number, each.kind:
                case 7, 2:
                    self._node(each.value, 0)
                case 10, 2:
                    domain = self._stream.text(each)
                case _:
                    pass
        return domain

    def _pair(self, length: int) -> tuple[str, str]:
        key = value = ""
        for each in self._stream.fields(length):
            match each.number, each.kind:
                case 1, 2:
                    key = self._stream.text(each)
                case 2, 2:
                    value = self._stream.text(each)
                case _:
                    pass
        return key, value

    def _weigh(self) -> None:
        """Count the weights by their number format: not scales, and what else isn't a matrix."""
        graph = self._graph
        graph.resident_bytes = graph.weights_bytes
        for each in self._tensors:
            kernels = self._laid_out[each.name]
            if kernels and each.name not in self._read:
                graph.resident_bytes -= each.bytes
            if kernels and each.name in self._bits:
                blocks = math.prod(each.dims[:2])
                graph.resident_bytes += kernels * (each.bytes + blocks * _BLOCK_BYTES)
            bits = self._bits.get(each.name)
            if bits is not None:
                graph.elements[f"int{bits}"] += each.bytes * 8 // bits
                graph.widths.add(each.dims[0] if each.dims else 0)
            elif each.element in ELEMENTS and len(each.dims) > 1 and each.name not in self._scales:
                graph.elements[ELEMENTS[each.element]] += math.prod(each.dims)
                graph.widths.add(each.dims[-1])


def folder_path(graph: str, location: str) -> str:
    """Where the external data of a graph lie, as a path of the model's folder.

    Parameters
    ----------
    graph
        Path of the graph.
    location
        As the graph says it, from its own folder on.

    Raises
    ------
    InvalidModel
        Outside of it.
    """
    parts = PurePosixPath(location).parts
    hidden = any(each.startswith(".") for each in parts)
    if not parts or location.startswith("/") or hidden or "\\" in location or "\0" in location:
        raise InvalidModel(
            f"{graph} reads its weights from {location[:MAX_SHOWN]!r}, outside of its folder.",
            "Export the model with its external data beside the graph; nothing was kept of this one.",
        )
    return str(PurePosixPath(graph).parent / location)
