"""Accelerators, as the library tells of them."""

import pytest

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.engine.llama_cpp.devices import Device, accelerators, as_native, chosen, layers_that_fit
from slm_runtime.engine.loading import Offload

pytestmark = pytest.mark.runtime

FOUND = [
    Device(name=f"Vulkan{number}", description="GPU of the test", provider="vulkan", handle=number + 1)
    for number in range(3)
]


def test_the_library_s_devices_can_be_asked() -> None:
    load_backends()
    for each in accelerators("vulkan"):
        free, total = each.memory()
        assert 0 <= free <= total
        assert each.name
        assert each.provider.islower()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ((), ["Vulkan0", "Vulkan1", "Vulkan2"]),
        (("vulkan1",), ["Vulkan1"]),
        (("2", "Vulkan0", "2"), ["Vulkan2", "Vulkan0"]),
    ],
)
def test_they_are_chosen_by_name_or_number(wanted: tuple[str, ...], names: list[str]) -> None:
    assert [each.name for each in chosen(FOUND, wanted)] == names


def test_one_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(LoadError, match=r"no device 'CUDA0'; the library finds Vulkan0 \(GPU of the test\)"):
        chosen(FOUND[:1], ("CUDA0",))
    with pytest.raises(LoadError, match="finds no accelerator"):
        chosen([], ("0",))


@pytest.mark.parametrize(
    ("free", "asked", "layers"),
    [(2000, -1, -1), (1100, -1, -1), (1099, -1, 9), (150, -1, 0), (50, -1, 0), (50, 7, 7)],
)
def test_as_many_layers_as_fit_are_put_on_a_device(free: int, asked: int, layers: int) -> None:
    assert layers_that_fit(free, asked, Offload(layers=10, layer_bytes=100, reserve_bytes=100)) == layers
    assert layers_that_fit(free, asked, None) == asked


def test_the_list_ends_with_nothing() -> None:
    assert list(as_native(FOUND)) == [1, 2, 3, None]


def test_a_provider_without_a_device_runs_on_the_cpu_and_says_so(tiny, make_engine) -> None:
    if accelerators("vulkan"):
        pytest.skip("this machine has an accelerator that the library can use")
    info = make_engine(tiny, provider="vulkan", gpu_layers=-1).info
    assert (info.provider, info.layers_offloaded, info.device_total) == ("cpu", 0, 0)
    assert info.device.startswith("cpu (")
