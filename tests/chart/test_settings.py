"""What the chart writes is what the operator reads."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_contract.config import EngineName
from slm_operator.config import load_settings
from slm_operator.settings import (
    CatalogVariant,
    EnvVar,
    FetchSettings,
    HardwareClass,
    MirrorSettings,
    Settings,
    Toleration,
)
from tests.chart.generate import CHART, ROOT
from tests.chart.rendering import EVERYTHING, OPENSHIFT, Render, Rendered

SHIPPED = ["gpu-nvidia", "npu-intel", "gpu-amd", "npu-qualcomm", "gpu-intel", "gpu-intel-i915", "cpu"]


def settings(rendered: Rendered) -> Settings:
    return Settings.model_validate(yaml.safe_load(rendered.settings_text()))


def names(classes: tuple[HardwareClass, ...], family: str | None = None) -> list[str]:
    return [each.name for each in classes if family in {None, each.family}]


def test_every_mode_parses(rendered: Rendered, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(rendered.settings_text())
    assert load_settings(file).classes


def test_the_defaults(render: Render) -> None:
    read = settings(render())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert read.runtime_image == f"ghcr.io/slm-operator/slm-runtime:{version}"
    assert read.namespaces == ()
    assert read.fetch == FetchSettings()
    assert names(read.classes) == SHIPPED
    assert names(read.classes, "gpu") == ["gpu-nvidia", "gpu-amd", "gpu-intel", "gpu-intel-i915"]


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({}, None),
        ({"nodeCache": {"path": ""}}, None),
        # What an upgrade with --reuse-values has of values that the earlier chart didn't know.
        ({"nodeCache": None}, None),
        ({"nodeCache": {"path": "/var/lib/slm-models"}}, "/var/lib/slm-models"),
    ],
)
def test_the_directory_of_nodes_is_one_that_the_site_names(
    render: Render, values: dict[str, Any], path: str | None
) -> None:
    assert settings(render(values)).node_cache == path


def test_an_accelerator_waits_for_an_image_that_can_use_it(render: Render) -> None:
    classes = settings(render()).classes
    assert {each.name for each in classes if not each.image_required} == {"cpu"}
    assert all(each.image_required == (each.resource is not None) for each in classes)


@pytest.mark.parametrize(
    ("values", "flags", "user"),
    [
        ({}, (), 65532),
        ({}, OPENSHIFT, None),
        ({"runtime": {"runAsUser": "Platform"}}, (), None),
        # What an upgrade with --reuse-values has of a value that the earlier chart didn't know.
        ({"runtime": {"runAsUser": None}}, (), 65532),
        ({"runtime": {"runAsUser": 1000650000}}, (), 1000650000),
        ({"runtime": {"runAsUser": 4711}}, OPENSHIFT, 4711),
    ],
)
def test_model_pods_run_as_the_site_or_the_platform_says(
    render: Render, values: dict[str, Any], flags: tuple[str, ...], user: int | None
) -> None:
    assert settings(render(values, *flags)).run_as_user == user


def test_chart_and_distribution_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_everything_reaches_the_operator(render: Render) -> None:
    read = settings(render(EVERYTHING))
    assert read.runtime_image == "registry.corp/slm-runtime:1"
    assert read.image_pull_secrets == ("registry",)
    assert read.allowed_image_prefixes == ("registry.corp/",)
    assert read.allowed_service_accounts == ("models",)
    assert read.fetch.env == (
        EnvVar(name="PIP_INDEX_URL", value="https://index.corp/simple"),
        EnvVar(name="PIP_NO_INPUT", value="true"),
        EnvVar(name="PIP_TIMEOUT", value="30"),
    )
    assert read.fetch.ca_bundle == EVERYTHING["fetch"]["caBundle"]
    assert read.fetch.allowed_sources == ("https://models.corp/", "pypi://")
    assert read.fetch.mirrors == (MirrorSettings(source="hf://", mirror="https://hub.corp/"),)
    assert read.fetch.hosts == ("hub.corp", "models.corp:8443")
    assert read.fetch.bytes_per_second == 10_000_000
    assert read.cluster_domain == "corp.local"


def test_the_catalog_names_models_that_can_be_fetched(render: Render) -> None:
    """What is in each is the hubs' word: what is asked here is that names, sizes and licenses are whole."""
    catalog = settings(render()).catalog
    assert {"phi-4-mini", "qwen3-4b", "smollm2-135m"} <= set(catalog)
    assert all(entry.license and entry.quantization for entry in catalog.values())
    assert catalog["qwen3-4b"].size_bytes == 2_497_280_256, (
        "as a number of Helm's it would be 2.497280256e+09"
    )


def test_an_entry_of_the_catalog_is_changed_by_what_differs_and_removed_by_null(render: Render) -> None:
    before, read = settings(render()).catalog, settings(render(EVERYTHING)).catalog
    assert set(read) == {*before, "own"} - {"mistral-7b"}
    assert read["qwen3-4b"] == before["qwen3-4b"]
    changed = {"source": "oci://registry.corp/phi:1", "sha256": "a" * 64, "size_bytes": 2_000_000_000}
    assert read["phi-4-mini"] == before["phi-4-mini"].model_copy(update=changed)
    assert read["own"].gated
    assert read["own"].variants == (CatalogVariant(hardware="gpu", source="hf://corp/own/own-Q8_0.gguf"),)


@pytest.mark.parametrize(
    "tag", ["12345678", "12345678e012", "0x12", "1_0", "1.10", "0o7", "no", "2026-01-01"]
)
def test_a_tag_that_looks_like_something_else_stays_text(render: Render, tag: str) -> None:
    rendered = render({"image": {"tag": tag}, "runtime": {"image": {"repository": "corp/slm", "tag": tag}}})
    assert settings(rendered).runtime_image == f"corp/slm:{tag}"
    [deployment] = [each for each in rendered.objects if each["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f"/slm-operator:{tag}")


def test_a_ca_bundle_from_a_file_arrives_unchanged(render: Render, tmp_path: Path) -> None:
    pem = "# corp root\n-----BEGIN CERTIFICATE-----\nAAAA+/==\n-----END CERTIFICATE-----\n\n"
    file = tmp_path / "ca.pem"
    file.write_text(pem)
    assert settings(render({}, "--set-file", f"fetch.caBundle={file}")).fetch.ca_bundle == pem


def test_a_class_of_the_user_is_one_like_the_shipped(render: Render) -> None:
    own: dict[str, Any] = {
        "family": "npu",
        "order": 5,
        "nodeSelector": {"corp.example/npu": "v2"},
        "resource": {"name": "corp.example/npu", "count": 2},
        "tolerations": [{"key": "corp.example/npu", "operator": "Exists", "effect": "NoSchedule"}],
        "image": "registry.corp/slm-runtime-npu@sha256:" + "b" * 64,
        "engine": "LlamaCpp",
        "provider": "corp",
        "gpuLayers": -1,
        "provisionable": True,
    }
    classes = settings(render({"hardwareClasses": {"npu-corp": own}})).classes
    assert names(classes, "npu") == ["npu-corp", "npu-intel", "npu-qualcomm"]
    found = next(each for each in classes if each.name == "npu-corp")
    assert found.resource is not None
    assert (found.resource.name, found.resource.count) == ("corp.example/npu", 2)
    assert found.node_selector == own["nodeSelector"], (
        "an image of its own says nothing of runtime.architectures"
    )
    assert found.tolerations == (Toleration(key="corp.example/npu", operator="Exists", effect="NoSchedule"),)
    assert (found.image, found.engines) == (own["image"], (EngineName.LLAMA_CPP,))
    assert (found.provider, found.gpu_layers, found.provisionable) == ("corp", -1, True)


def test_a_class_is_changed_by_what_differs_and_removed_by_null(render: Render) -> None:
    classes = settings(
        render({"hardwareClasses": {"gpu-amd": None, "gpu-nvidia": {"image": "r/cuda:1", "order": 90}}})
    ).classes
    assert names(classes, "gpu") == ["gpu-intel", "gpu-intel-i915", "gpu-nvidia"]
    nvidia = next(each for each in classes if each.name == "gpu-nvidia")
    assert nvidia.image == "r/cuda:1"
    assert nvidia.resource is not None
    assert nvidia.resource.name == "nvidia.com/gpu"


def test_a_variant_that_the_registry_has_is_the_image_of_the_classes_that_name_it(render: Render) -> None:
    def gpu(values: dict[str, Any], name: str = "gpu-nvidia") -> HardwareClass:
        return next(each for each in settings(render(values)).classes if each.name == name)

    without = gpu({})
    assert (without.image, without.image_required, without.provider) == (None, True, "cuda")
    image = {"repository": "r.corp/slm-runtime", "tag": "2", "digest": "sha256:" + "0" * 64}
    pushed = {"runtime": {"variants": ["vulkan"], "image": image}}
    for name in ("gpu-nvidia", "gpu-amd", "gpu-intel", "gpu-intel-i915"):
        found = gpu(pushed, name)
        assert (found.image, found.provider) == ("r.corp/slm-runtime-vulkan:2", "vulkan")
        assert found.node_selector[ARCH] == "amd64", "it is built like the other"
    assert gpu(pushed, "npu-intel").image is None
    own = gpu({**pushed, "hardwareClasses": {"gpu-nvidia": {"image": "r/cuda:1"}}})
    assert (own.image, own.provider) == ("r/cuda:1", "cuda")


def test_what_a_class_needs_to_get_at_its_device_is_read(render: Render) -> None:
    own = {
        "family": "gpu",
        "runtimeClassName": "nvidia",
        "supplementalGroups": [44, 105],
        "env": {"GGML_VK_VISIBLE_DEVICES": "0"},
        "resourceClaimTemplate": "one-gpu",
    }
    classes = settings(render({"hardwareClasses": {"own": own}})).classes
    found = next(each for each in classes if each.name == "own")
    assert (found.runtime_class_name, found.supplemental_groups) == ("nvidia", (44, 105))
    assert found.env == own["env"]
    assert found.resource_claim_template == "one-gpu"


@pytest.mark.parametrize("order", [0, 1, 9])
def test_the_lowest_order_is_first(render: Render, order: int) -> None:
    classes = {"gpu-own": {"family": "gpu", "order": order}, "gpu-last": {"family": "gpu"}}
    found = names(settings(render({"hardwareClasses": classes})).classes, "gpu")
    assert (found[0], found[-1]) == ("gpu-own", "gpu-last")


def test_nothing_that_is_zero_or_false_is_taken_for_absent(render: Render) -> None:
    """Helm's `default` and `if` take 0, false and "" for nothing given."""
    env = {"PIP_RETRIES": 0, "PIP_NO_INPUT": False, "EMPTY": "", "PIP_TIMEOUT": 10000000, "PIP_PROGRESS": 0.5}
    changes = {"gpu-nvidia": {"gpuLayers": 0, "imageRequired": False, "provisionable": False}}
    read = settings(render({"fetch": {"env": env}, "hardwareClasses": changes}))
    assert {each.name: each.value for each in read.fetch.env} == {
        "PIP_RETRIES": "0",
        "PIP_NO_INPUT": "false",
        "EMPTY": "",
        "PIP_TIMEOUT": "10000000",
        "PIP_PROGRESS": "0.5",
    }
    nvidia = next(each for each in read.classes if each.name == "gpu-nvidia")
    assert (nvidia.gpu_layers, nvidia.image_required, nvidia.provisionable) == (0, False, False)


ARCH = "kubernetes.io/arch"


def test_classes_of_the_runtime_image_keep_to_nodes_that_can_run_it(render: Render) -> None:
    def arch(values: dict[str, Any], name: str = "cpu") -> str | None:
        classes = settings(render(values)).classes
        return next(each for each in classes if each.name == name).node_selector.get(ARCH)

    assert arch({}) == "amd64"
    assert arch({"runtime": {"architectures": ["arm64"]}}) == "arm64"
    assert arch({"runtime": {"architectures": ["amd64", "arm64"]}}) is None
    assert arch({"runtime": {"architectures": []}}) is None
    assert arch({"runtime": {"architectures": None}}) is None, "as with --reuse-values from an older release"
    own_image = {"gpu-nvidia": {"image": "registry.corp/cuda:1"}}
    assert arch({"hardwareClasses": own_image}, "gpu-nvidia") is None
    own_word = {"cpu": {"nodeSelector": {ARCH: "arm64"}}}
    assert arch({"hardwareClasses": own_word}) == "arm64"
    assert arch({"hardwareClasses": {"bare": {"family": "cpu"}}}, "bare") == "amd64"


def test_an_upgrade_that_reuses_older_values_still_renders(render: Render) -> None:
    older = {
        "runtime": {"architectures": None, "allowedServiceAccounts": None},
        "fetch": {"mirrors": None, "hosts": None, "bytesPerSecond": None},
        "catalog": None,
    }
    read = settings(render(older))
    assert read.allowed_service_accounts == ()
    assert (read.fetch, read.catalog) == (FetchSettings(), {})


@pytest.mark.parametrize("values", [{"workers": 3}, {"fetch": {"env": {"HTTPS_PROXY": "http://p:1"}}}])
def test_a_change_of_the_settings_rolls_the_operator(render: Render, values: dict[str, Any]) -> None:
    def checksum(rendered: Rendered) -> str:
        annotations = rendered.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum(render(values)) != checksum(render())
    assert checksum(render({"podLabels": {"team": "a"}})) == checksum(render())
