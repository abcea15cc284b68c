"""The accelerator that tests run on, where the library finds one."""

import pytest

from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.engine.llama_cpp.devices import Device, accelerators

VISIBLE = "GGML_VK_VISIBLE_DEVICES"
"""By the library's numbers; none of them is taken where it is empty, and Mesa's software device only where it is named."""


def vulkan() -> Device:
    """The first device; without one the test is skipped, and says what was looked for."""
    load_backends()
    found = accelerators("vulkan")
    if not found:
        pytest.skip(
            "the library finds no Vulkan device: it takes libggml-vulkan.so beside the wheel's backends, a driver, and "
            f"for Mesa's software device {VISIBLE}=0"
        )
    return found[0]
