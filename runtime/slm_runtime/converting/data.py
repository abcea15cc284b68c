"""The file beside a graph that has its weights."""

from collections.abc import Iterable
from typing import BinaryIO, Final

import numpy as np
import onnx
from numpy.typing import NDArray

NAME: Final = "model.onnx.data"
ALIGNMENT: Final = 4096
"""Bytes: a tensor begins with a page, so that it can be mapped."""

Array = NDArray[np.generic]


class DataFile:
    """Takes tensors one after the other, and their numbers as they come."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tensors: list[onnx.TensorProto] = []

    def add(
        self, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], parts: Iterable[Array]
    ) -> None:
        """Write a tensor's numbers, in their order."""
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        begin = self._file.tell()
        for part in parts:
            self._file.write(np.ascontiguousarray(part, dtype).data)
        tensor = onnx.TensorProto(name=name, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        for key, value in (("location", NAME), ("offset", begin), ("length", self._file.tell() - begin)):
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)

    def again(self, name: str, other: str, shape: tuple[int, ...]) -> None:
        """Call the same bytes by another name, too, as numbers of another shape."""
        (known,) = (tensor for tensor in self.tensors if tensor.name == name)
        tensor = onnx.TensorProto()
        tensor.CopyFrom(known)
        tensor.name = other
        tensor.ClearField("dims")
        tensor.dims.extend(shape)
        self.tensors.append(tensor)
