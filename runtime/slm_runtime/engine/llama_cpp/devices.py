"""The accelerators that ggml's backends have found, as the library itself tells of them."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import llama_cpp

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import Offload

_GPUS: Final = (1, 2)
"""Kinds of devices that layers are offloaded to: with memory of their own, and with the host's."""


@dataclass(frozen=True)
class Device:
    name: str
    """As ggml numbers it: `Vulkan0`."""
    description: str
    """What people call it: `NVIDIA L4`."""
    provider: str
    """Its backend's name in small letters: `cuda`, `rocm`, `vulkan`, ..."""
    handle: int

    def memory(self) -> tuple[int, int]:
        """Bytes that are free now, and all."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _library().ggml_backend_dev_memory(self.handle, ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value


def accelerators(provider: str) -> list[Device]:
    """Those of one backend, in the library's order: another may have the same ones. None before the backends are loaded."""
    library = _library()
    handles = [library.ggml_backend_dev_get(index) for index in range(library.ggml_backend_dev_count())]
    found = [_device(handle) for handle in handles if library.ggml_backend_dev_type(handle) in _GPUS]
    return [each for each in found if each.provider == provider]


def chosen(found: Sequence[Device], wanted: Sequence[str]) -> list[Device]:
    """Those that are wanted, by names or numbers, in that order; all where nothing is said.

    Raises
    ------
    LoadError
        One isn't there.
    """
    if not wanted:
        return list(found)
    known = {each.name.casefold(): each for each in found}
    known |= {str(number): each for number, each in enumerate(found)}
    missing = [name for name in wanted if name.casefold() not in known]
    if missing:
        there = ", ".join(f"{each.name} ({each.description})" for each in found) or "no accelerator"
        raise LoadError("DeviceUnavailable", f"there is no device {missing[0]!r}; the library finds {there}")
    return [known[name.casefold()] for name in dict.fromkeys(wanted)]


def layers_that_fit(free: int, asked: int, offload: Offload | None) -> int:
    """How many layers to offload, -1 for all.

    Parameters
    ----------
    free
        Bytes of all devices together.
    asked
        So many, whatever fits; -1: as many as do.
    """
    if asked >= 0 or offload is None or not offload.layer_bytes:
        return asked
    fitting = max(0, free - offload.reserve_bytes) // offload.layer_bytes
    return -1 if fitting >= offload.layers else fitting


def as_native(devices: Sequence[Device]) -> "ctypes.Array[ctypes.c_void_p]":
    """The list that a model is loaded onto, ended by nothing."""
    return (ctypes.c_void_p * (len(devices) + 1))(*(each.handle for each in devices), None)


def _device(handle: int) -> Device:
    library = _library()
    backend = library.ggml_backend_reg_name(library.ggml_backend_dev_backend_reg(handle))
    return Device(
        name=library.ggml_backend_dev_name(handle).decode(errors="replace"),
        description=library.ggml_backend_dev_description(handle).decode(errors="replace"),
        provider=backend.decode(errors="replace").lower(),
        handle=handle,
    )


@cache
def _library() -> Any:
    """The registry is in one file, whoever opens it."""
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml.so.0"))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    for name, takes, gives in (
        ("ggml_backend_dev_get", ctypes.c_size_t, pointer),
        ("ggml_backend_dev_type", pointer, ctypes.c_int),
        ("ggml_backend_dev_name", pointer, text),
        ("ggml_backend_dev_description", pointer, text),
        ("ggml_backend_dev_backend_reg", pointer, pointer),
        ("ggml_backend_reg_name", pointer, text),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = [takes], gives
    sizes = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.argtypes = [pointer, sizes, sizes]
    library.ggml_backend_dev_memory.restype = None
    return library
