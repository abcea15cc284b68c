"""Whether AMX works here. Some virtual machines advertise it and kill the process that uses it."""

import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

# ldtilecfg [rdi]; tilezero tmm0; tilezero tmm1; tilezero tmm2; tdpbssd tmm0, tmm1, tmm2; tilerelease; ret
_CODE: Final = bytes.fromhex("c4e2784907 c4e27b49c0 c4e27b49c8 c4e27b49d0 c4e26b5ec1 c4e27849c0 c3")
_ARCH_PRCTL: Final = 158
_ARCH_REQ_XCOMP_PERM: Final = 0x1023
_XFEATURE_XTILEDATA: Final = 18


def advertised(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        return " amx_tile" in cpuinfo.read_text()
    except OSError:
        return False


def usable() -> bool:
    """Multiply one tile in a child process, and see whether it survives. Takes milliseconds."""
    child = os.fork()
    if child == 0:
        try:
            _multiply_tile()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return status == 0


def _multiply_tile() -> None:
    syscall = ctypes.CDLL(None).syscall
    if syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) != 0:
        raise OSError("the kernel gives no permission for AMX")
    config = bytearray(64)
    config[0] = 1  # palette
    for tile in range(3):
        config[16 + 2 * tile] = 64  # bytes a row
        config[48 + tile] = 16  # rows
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    argument = (ctypes.c_char * 64).from_buffer(config)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(argument))
