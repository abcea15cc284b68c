"""What of a spec reaches the runtime's configuration, and that what isn't written leaves no trace there."""

from typing import Any

import pytest

from slm_contract.config import PromptConfig, PromptMessage, PromptParameters, RuntimeConfig
from tests.unit.operator_core.world import CPU, GIVEN, GPU, World, config_of, gpu_node, node, spec


def world_of(**parts: Any) -> World:
    world = World(spec(resources=GIVEN, **parts), nodes=(node(), gpu_node()))
    world.settle()
    return world


def told(**parts: Any) -> RuntimeConfig:
    return RuntimeConfig.model_validate_json(config_of(world_of(**parts).deployment))


def with_prompt(**prompt: Any) -> dict[str, Any]:
    return {**spec()["model"], "prompt": prompt}


def test_a_prompt_reaches_the_runtime() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    parameters = {"temperature": 0, "topP": 0.5, "repeatLastN": 32, "maxTokens": 7}
    config = told(
        model=with_prompt(
            system="Be kind.",
            template=template,
            stop=["END"],
            parameters=parameters,
            messages=[{"role": "user", "content": "Hi"}],
        )
    )
    assert config.prompt == PromptConfig(
        system="Be kind.",
        template=template,
        stop=("END",),
        parameters=PromptParameters(temperature=0, top_p=0.5, repeat_last_n=32, max_tokens=7),
        messages=(PromptMessage(role="user", content="Hi"),),
    )


def test_what_the_engine_runs_with_reaches_it() -> None:
    config = told(runtime={"flashAttention": "Disabled", "keepAlive": "1h30m", "kvCacheMemory": "1Gi"})
    assert (config.flash_attention, config.keep_alive_seconds) == (False, 5400)
    assert config.kv_cache_bytes == 1 << 30
    assert told(runtime={"kvCacheMemory": "0"}).kv_cache_bytes == 1, "as little as one request takes"
    assert told(runtime={"flashAttention": "Enabled"}).flash_attention is True
    assert told(runtime={"speculation": "Off"}).speculation is False
    assert told(runtime={"speculation": "On"}).speculation is True
    assert told(endpoint={"cors": {"allowedOrigins": ["https://a"]}}).allowed_origins == ("https://a",)
    assert told(endpoint={"idleTimeout": "1h5m"}).idle_seconds == 3900
    assert told(endpoint={"storedResponses": 100}).stored_responses == 100
    origins = ("https://images.example", "http://minio.media.svc:9000")
    assert told(endpoint={"imageOrigins": list(origins)}).image_origins == origins
    assert told(endpoint={"unknownFields": "Refuse"}).unknown_fields == "Refuse"
    assert told(endpoint={"trustedProxies": ["10.0.0.0/8"]}).trusted_proxies == ("10.0.0.0/8",)


@pytest.mark.parametrize(("hardware", "layers"), [(GPU.name, 12), (CPU.name, 0)])
def test_layers_are_offloaded_only_where_there_is_something_to_offload_to(hardware: str, layers: int) -> None:
    config = told(runtime={"gpuLayers": 12}, hardware={"preference": [hardware]})
    assert config.hardware.gpu_layers == layers


@pytest.mark.parametrize(("hardware", "devices"), [(GPU.name, ("Vulkan1", "0")), (CPU.name, None)])
def test_devices_are_chosen_where_there_are_some(hardware: str, devices: tuple[str, ...] | None) -> None:
    config = told(runtime={"devices": ["Vulkan1", "0"]}, hardware={"preference": [hardware]})
    assert config.hardware.devices == devices


def test_the_class_says_how_many_layers_where_the_spec_does_not() -> None:
    assert told(hardware={"preference": [GPU.name]}).hardware.gpu_layers == GPU.gpu_layers


def test_what_is_not_written_is_not_told() -> None:
    """A field that a version adds must not roll what an earlier one rendered."""
    text = config_of(world_of().deployment)
    for name in (
        "prompt",
        "flashAttention",
        "speculation",
        "keepAlive",
        "allowedOrigins",
        "kvCacheBytes",
        "idleSeconds",
        "unknownFields",
        "trustedProxies",
        "messages",
    ):
        assert name not in text


@pytest.mark.parametrize(
    "edit",
    [
        {"model": with_prompt(system="Be brief.")},
        {"model": with_prompt(messages=[{"role": "user", "content": "Hi"}])},
        {"runtime": {"flashAttention": "Disabled"}},
        {"runtime": {"keepAlive": "10m"}},
        {"runtime": {"speculation": "Off"}},
        {"endpoint": {"cors": {"allowedOrigins": ["*"]}}},
        {"endpoint": {"idleTimeout": "1h5m"}},
        {"endpoint": {"unknownFields": "Refuse"}},
        {"endpoint": {"trustedProxies": ["10.0.0.0/8"]}},
    ],
)
def test_each_of_them_rolls_the_pods(edit: dict[str, Any]) -> None:
    world = world_of()
    before = config_of(world.deployment)
    world.edit(**edit)
    world.settle()
    assert config_of(world.deployment) != before


def test_another_port_rolls_nothing() -> None:
    world = world_of()
    before = world.deployment["spec"]["template"]
    world.edit(endpoint={"port": 80, "type": "NodePort"})
    world.settle()
    assert world.deployment["spec"]["template"] == before


def test_without_flash_attention_more_memory_is_asked_for() -> None:
    def request(**runtime: Any) -> int:
        world = World(spec(runtime={"contextLength": 2048, **runtime}))
        world.settle()
        world.finish_job("inspect")
        world.settle()
        (container,) = world.deployment["spec"]["template"]["spec"]["containers"]
        return int(container["resources"]["limits"]["memory"].removesuffix("Mi"))

    assert request(flashAttention="Disabled") > request() + 100
