import pytest

from slm_operator import config

GOOD = """
runtimeImage: registry/runtime:1
classes:
- {name: cpu, family: cpu}
"""


def environ(tmp_path, text: str, **more: str) -> dict[str, str]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return {"SLM_OPERATOR_CONFIG": str(path), **more}


def test_the_chart_s_file_and_the_pod_s_fields(tmp_path):
    loaded = config.load(
        environ(tmp_path, GOOD, POD_NAME="slm-1", POD_NAMESPACE="system", SLM_LEASE_NAME="mine")
    )
    assert loaded.settings.runtime_image == "registry/runtime:1"
    assert (loaded.identity, loaded.lease_namespace, loaded.lease_name) == ("slm-1", "system", "mine")
    assert (loaded.port, loaded.log_level) == (8080, "info")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("classes: [{name: cpu, family: cpu}]", "runtimeImage: Field required"),
        (GOOD + "workers: many", "workers: Input should be a valid integer"),
        (GOOD + "workes: 3", "workes: Extra inputs are not permitted"),
        (GOOD.replace("family: cpu", "engine: fast, family: cpu"), "classes[0].engines[0]: Input should be"),
        (
            GOOD + "fetch: {allowedSources: ['pypi://', models.corp]}",
            "fetch.allowedSources[1]: 'models.corp'",
        ),
        (
            GOOD + "allowedImagePrefixes: ['registry.corp/Team/']",
            "allowedImagePrefixes[0]: 'registry.corp/Team/'",
        ),
        (GOOD + "fetch: {hosts: [Models.corp]}", "fetch.hosts[0]: 'Models.corp'"),
        (GOOD + "fetch: {bytesPerSecond: 0}", "fetch.bytesPerSecond: Input should be greater"),
        (
            GOOD + "fetch: {mirrors: [{source: 'hf://', mirror: 'hub.corp'}]}",
            "fetch.mirrors[0].mirror: 'hub.corp'",
        ),
        (
            GOOD + "fetch: {mirrors: [{source: hub, mirror: 'https://hub.corp/'}]}",
            "fetch.mirrors[0].source: 'hub'",
        ),
        (GOOD + "catalog: {m: {source: 'hf://a', license: MIT}}", "catalog.m: 'hf://a' is no hf:// source"),
        (
            GOOD + "catalog: {M: {source: 'hf://a/b', license: MIT}}",
            "catalog.M: 'catalog://M' is no catalog://",
        ),
        (
            GOOD + "catalog: {m: {source: 'catalog://n', license: MIT}}",
            "catalog.m: name a source, not another",
        ),
        (
            GOOD + "catalog: {m: {source: 'hf://a/b', license: MIT, sha256: a}}",
            "catalog.m.sha256: String should",
        ),
        (
            GOOD
            + "catalog: {m: {source: 'hf://a/b', license: MIT, variants: [{hardware: gpu, source: 'ftp://a'}]}}",
            "catalog.m: 'ftp://a' can't be fetched",
        ),
        ("runtimeImage: [", "not YAML"),
        ("- a", "expected a map of settings, found list"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_the_place(tmp_path, text, sentence):
    with pytest.raises(config.ConfigError) as caught:
        config.load(environ(tmp_path, text))
    assert sentence in str(caught.value)
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_missing_variable(tmp_path):
    with pytest.raises(config.ConfigError, match="No such file"):
        config.load({"SLM_OPERATOR_CONFIG": str(tmp_path / "none.yaml")})
    with pytest.raises(config.ConfigError, match="SLM_OPERATOR_CONFIG isn't set"):
        config.load({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SLM_OPERATOR_PORT", "http"), ("SLM_OPERATOR_PORT", "70000"), ("SLM_LOG_LEVEL", "loud")],
)
def test_wrong_variables_are_named(tmp_path, variable, value):
    with pytest.raises(config.ConfigError, match=f"{variable} is '{value}'"):
        config.load(environ(tmp_path, GOOD, **{variable: value}))
