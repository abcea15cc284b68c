"""Makes a graph give the logits of some tokens only.

As exporters write them, graphs give those of all tokens of a prompt, of which only the last one's are wanted: in small
models that is a fifth of the work, and most of the memory. What is changed are the graph's bytes, in the notation of
protocol buffers; its weights stay where they are.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

ROWS: Final = "slm.rows"
"""The input that says which: places in all sequences' tokens, one sequence after the other."""
ROWS_AXIS: Final = "slm.rows.count"
_CHOSEN, _FLAT = "slm.chosen", "slm.flat"

_MODEL_GRAPH: Final = 7
_NODE, _INPUT, _OUTPUT, _VALUE = 1, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_INFO_NAME, _INFO_TYPE, _TENSOR, _ELEMENT, _SHAPE, _DIMENSION = 1, 2, 1, 1, 2, 1
_DIMENSION_NAME: Final = 2
_ATTRIBUTE_NAME, _ATTRIBUTE_NUMBER, _ATTRIBUTE_TYPE, _INTEGER = 1, 3, 20, 2
_INT64: Final = 7
_HEADS: Final = frozenset({b"MatMul", b"MatMulNBits"})


class _Field(NamedTuple):
    number: int
    whole: bytes
    """As it is written."""
    value: bytes
    """Of a message or text; of numbers nothing."""


def narrowed(model: bytes, logits: str) -> bytes | None:
    """The graph whose output `logits` is as long as its new input ROWS; None: it isn't made so that it can be changed."""
    try:
        return _narrowed(model, logits.encode())
    except (IndexError, ValueError):
        return None  # whoever loads it says what is wrong with it


def _narrowed(model: bytes, logits: bytes) -> bytes | None:
    parts = list(_fields(model))
    graphs = [part.value for part in parts if part.number == _MODEL_GRAPH]
    if len(graphs) != 1:
        return None
    fields = list(_fields(graphs[0]))
    nodes = [field for field in fields if field.number == _NODE]
    makers = [node for node in nodes if logits in _texts(node.value, _NODE_OUTPUT)]
    told = [
        field
        for field in fields
        if field.number in {_OUTPUT, _VALUE} and _texts(field.value, _INFO_NAME) == [logits]
    ]
    shown = [field for field in told if field.number == _OUTPUT]
    if (
        len(makers) != 1
        or len(shown) != 1
        or any(logits in _texts(node.value, _NODE_INPUT) for node in nodes)
    ):
        return None
    head = list(_fields(makers[0].value))
    if not _HEADS.intersection(field.value for field in head if field.number == _NODE_KIND):
        return None
    first = next(field for field in head if field.number == _NODE_INPUT)
    chosen = [_message(_NODE_INPUT, _CHOSEN.encode()) if field is first else field.whole for field in head]
    gone = {id(field) for field in (makers[0], *told)}
    graph = b"".join(
        [
            *(field.whole for field in fields if id(field) not in gone),
            _node(b"Flatten", [first.value], _FLAT.encode(), axis=2),
            _node(b"Gather", [_FLAT.encode(), ROWS.encode()], _CHOSEN.encode(), axis=0),
            _message(_NODE, b"".join(chosen)),
            _message(
                _INPUT, _info(ROWS.encode(), _number(_ELEMENT, _INT64), [_dimension(ROWS_AXIS.encode())])
            ),
            _message(_OUTPUT, _shorter(shown[0].value)),
        ]
    )
    return b"".join(
        _message(_MODEL_GRAPH, graph) if part.number == _MODEL_GRAPH else part.whole for part in parts
    )


def _shorter(info: bytes) -> bytes:
    """The same output with an axis of rows in place of all but the last."""
    [tensor] = _texts(_texts(info, _INFO_TYPE)[0], _TENSOR)
    [shape] = _texts(tensor, _SHAPE)
    last = [field.whole for field in _fields(shape) if field.number == _DIMENSION][-1]
    element = next(field.whole for field in _fields(tensor) if field.number == _ELEMENT)
    return _info(_texts(info, _INFO_NAME)[0], element, [_dimension(ROWS_AXIS.encode()), last])


def _info(name: bytes, element: bytes, dimensions: list[bytes]) -> bytes:
    tensor = element + _message(_SHAPE, b"".join(dimensions))
    return _message(_INFO_NAME, name) + _message(_INFO_TYPE, _message(_TENSOR, tensor))


def _dimension(name: bytes) -> bytes:
    return _message(_DIMENSION, _message(_DIMENSION_NAME, name))


def _node(kind: bytes, inputs: list[bytes], output: bytes, *, axis: int) -> bytes:
    attribute = _message(_ATTRIBUTE_NAME, b"axis")
    attribute += _number(_ATTRIBUTE_NUMBER, axis) + _number(_ATTRIBUTE_TYPE, _INTEGER)
    parts = [_message(_NODE_INPUT, each) for each in inputs]
    parts += [_message(_NODE_OUTPUT, output), _message(_NODE_NAME, output), _message(_NODE_KIND, kind)]
    return _message(_NODE, b"".join(parts) + _message(_NODE_ATTRIBUTE, attribute))


def _texts(message: bytes, number: int) -> list[bytes]:
    """Texts, or messages, of a number."""
    return [field.value for field in _fields(message) if field.number == number]


def _fields(message: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        start = at
        key, at = _read(message, at)
        value = b""
        match key & 7:
            case 0:
                _, at = _read(message, at)
            case 1:
                at += 8
            case 2:
                size, at = _read(message, at)
                value = message[at : at + size]
                at += size
            case 5:
                at += 4
            case kind:
                raise ValueError(f"a field of kind {kind}")
        if at > len(message):
            raise ValueError("a field ends behind its message")
        yield _Field(key >> 3, message[start:at], value)


def _read(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _written(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _number(number: int, value: int) -> bytes:
    return _written(number << 3) + _written(value)


def _message(number: int, content: bytes) -> bytes:
    return _written(number << 3 | 2) + _written(len(content)) + content
