"""What the API server refuses, and the sentence that it says; one case a rule of the CRD."""

import json
from typing import Any

import pytest
import yaml

from slm_operator.crd.spec import Spec
from tests.apiserver.operator import CRD, slm
from tests.cluster import ControlPlane, HarnessError

pytestmark = pytest.mark.apiserver

HTTPS = "https://models.example.com/m.gguf"
SOURCES = (
    ("ftp://host/m.gguf", "write a source that begins with https://, hf://"),
    ("pypi://package/file", "with an exact version"),
    ("https://me:secret@host/m", "names and passwords belong into model.credentials"),
    ("hf://organization", "write hf://organization/repository, then /file.gguf"),
    ("hf://organization/repository/../m.gguf", "write hf://organization/repository, then /file.gguf"),
    ("ollama://a/b/c/d", "write ollama://name:tag"),
    ("oci://registry.corp", "write oci://registry/repository:tag"),
    ("s3://bucket", "write s3://bucket/path/model.gguf"),
    ("gs://Bucket/m.gguf", "write gs://bucket/path/model.gguf"),
    ("az://container/", "write az://container/path/model.gguf"),
    ("pvc://claim", "write pvc://claim/path/model.gguf"),
    ("pvc://claim/../m.gguf", "write pvc://claim/path/model.gguf"),
    ("catalog://phi/4", "write catalog://name"),
)
"""Sources that are none, and what the API server says instead."""
ACCEPTED = (
    "https://[2001:db8::1]:8443/m.gguf?X-Amz-Signature=1",
    "hf://org/Model-GGUF/sub/*Q4_K_M.gguf@refs/pr/1",
    "ollama://registry.corp:5000/library/qwen3:4b",
    "oci://registry.corp:5000/team/m@sha256:" + "a" * 64 + "#m.gguf",
    "s3://models/team/m.gguf",
    "gs://models/m.gguf",
    "az://models/m.gguf",
    "pvc://models/team/m.gguf",
    "pypi://package@1.0/m.gguf",
    "catalog://qwen2.5-3b",
)
ENTRY = {"name": "signers", "key": "cosign.pub"}
SIGNERS = {"configMapRef": ENTRY}
CASES: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {"name": "a.b"}}, "metadata.name becomes a Service: write at most 48 lowercase letters"),
    ({"metadata": {"name": "a" * 49}}, "metadata.name becomes a Service: write at most 48 lowercase letters"),
    ({"model": {"name": "a b"}}, "write a name that clients can send"),
    *(({"model": {"source": source}}, sentence) for source, sentence in SOURCES),
    *(
        ({"model": {"variants": [{"hardware": "npu", "source": source}]}}, sentence)
        for source, sentence in SOURCES
    ),
    *(
        ({"model": {"mirrors": [{"source": source, "mirror": "https://hub.corp/"}]}}, "up to a slash: hf://")
        for source in ("hf:", "hf://org", "https://host/path", "pvc://", "https://me@host/")
    ),
    *(
        (
            {"model": {"mirrors": [{"source": "hf://", "mirror": mirror}]}},
            "up to a slash: https://mirror/path/",
        )
        for mirror in (
            "https://",
            "https://hub.corp",
            "https://hub.corp/a",
            "pvc://claim/",
            "http://hub.corp/",
        )
    ),
    (
        {"model": {"mirrors": [{"source": "hf://", "mirror": "https://hub.corp/"}] * 2}},
        "Duplicate value",
    ),
    ({"model": {"sha256": "abc"}}, "write the 64 lowercase hexadecimal digits that sha256sum prints"),
    (
        {"model": {"credentials": {"secretRef": {"name": "A"}}}},
        "write an object's name: lowercase letters",
    ),
    (
        {"model": {"caBundle": {"configMapRef": {"name": "A"}}}},
        "write an object's name: lowercase letters",
    ),
    ({"model": {"verification": {}}}, "write either publicKey or certificate"),
    (
        {"model": {"verification": {"publicKey": SIGNERS, "certificate": SIGNERS}}},
        "write either publicKey or certificate",
    ),
    ({"model": {"verification": {"publicKey": {}}}}, "write either configMapRef or secretRef"),
    (
        {"model": {"verification": {"certificate": {**SIGNERS, "secretRef": ENTRY}}}},
        "write either configMapRef or secretRef",
    ),
    (
        {"model": {"verification": {"publicKey": {"secretRef": {**ENTRY, "name": "A"}}}}},
        "write an object's name: lowercase letters",
    ),
    (
        {"model": {"decryption": {"secretRef": {**ENTRY, "name": "A"}}}},
        "write an object's name: lowercase letters",
    ),
    ({"model": {"quantization": "q4"}}, "supported values: "),
    *(
        (
            {"model": {"source": source, "projector": {}}},
            "one file is all that can be looked at there: name the projector's own source in projector.source",
        )
        for source in (HTTPS, "pypi://package@1.0/m.gguf")
    ),
    (
        {"model": {"quantization": "Q8_0", "decryption": {"secretRef": ENTRY}}},
        "an encrypted model never lies on a volume in plain",
    ),
    (
        {
            "model": {
                "decryption": {"secretRef": ENTRY},
                "variants": [{"hardware": "npu", "source": HTTPS, "quantization": "Q8_0"}],
            }
        },
        "an encrypted model never lies on a volume in plain",
    ),
    ({"model": {"variants": [{"hardware": "N P U", "source": HTTPS}]}}, "write the name of a hardware class"),
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
    (
        {"endpoint": {"gateway": {"parentRefs": [{"name": "g"}], "backend": "InferencePool"}}},
        "an InferencePool, and nothing else, has an endpoint picker",
    ),
    (
        {"endpoint": {"gateway": {"parentRefs": [{"name": "g"}], "hostnames": ["Models.example.com"]}}},
        "write a host's name in lowercase letters",
    ),
    ({"autoscaling": {"min": 3, "max": 2}}, "write a min that is no more than max"),
    ({"autoscaling": {"min": 0, "max": 2}}, "with no pod left nobody would hear a request"),
    (
        {"autoscaling": {"min": 0, "max": 2, "waker": {"type": "External Push"}}},
        "write the type of a trigger as KEDA names it",
    ),
    ({"model": {"format": "ONNX"}}, "a model of ONNX is a folder, which can't be listed there"),
    (
        {"model": {"source": "hf://a/b", "format": "ONNX", "quantization": "Q8_0"}},
        "quantization, projector, decryption and adapters are of GGUF files",
    ),
    (
        {"model": {"source": "hf://a/b", "format": "ONNX"}, "runtime": {"kvCacheType": "q8_0"}},
        "OnnxRuntime runs ONNX, with keys and values as the graph has them",
    ),
    (
        {"model": {"format": "GGUF"}, "runtime": {"engine": "OnnxRuntime"}},
        "OnnxRuntime runs no GGUF",
    ),
    (
        {"endpoint": {"imageOrigins": ["https://images.example.com/a.png"]}},
        "write an origin such as https://images.example.com",
    ),
    ({"endpoint": {"trustedProxies": ["10.0.0.1"]}}, "write a range of addresses such as 10.0.0.0/8"),
    ({"endpoint": {"unknownFields": "refuse"}}, 'supported values: "Ignore", "Refuse"'),
    ({"endpoint": {"idleTimeout": "0s"}}, "write a duration above zero such as 90s"),
    ({"endpoint": {"idleTimeout": "a while"}}, "write a duration above zero such as 90s"),
    (
        {"endpoint": {"loadBalancerClass": "example.com/internal"}},
        "loadBalancerClass and loadBalancerSourceRanges are for type LoadBalancer",
    ),
    (
        {"endpoint": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "loadBalancerClass and loadBalancerSourceRanges are for type LoadBalancer",
    ),
    (
        {"endpoint": {"type": "LoadBalancer", "loadBalancerClass": "-"}},
        "write the name of a class of load balancers",
    ),
    *(
        (
            {"endpoint": {"type": "LoadBalancer", "loadBalancerSourceRanges": [wrong]}},
            "write a range of addresses such as 10.0.0.0/8",
        )
        for wrong in ("10.0.0.0", "10.0.0.256/8", "10.0.0.0/33", "example.com/8", "2001:db8::/129")
    ),
    (
        {"endpoint": {"annotations": {"slm-operator.io/intent": "0"}}},
        "annotations under slm-operator.io/ are the operator's own",
    ),
    (
        {"podTemplate": {"annotations": {"slm-operator.io/intent": "0"}}},
        "annotations under slm-operator.io/ are the operator's own",
    ),
    *(
        ({"podTemplate": {"labels": {own: "x"}}}, "are the operator's own: take other names")
        for own in ("slm-operator.io/hardware", "app.kubernetes.io/instance", "app.kubernetes.io/component")
    ),
    ({"podTemplate": {"labels": {"a": "-"}}}, "write a label's value: letters, digits"),
    (
        {"podTemplate": {"priorityClassName": "system-node-critical"}},
        "PriorityClasses that begin with system- are for the cluster's own parts",
    ),
    *(
        ({"podTemplate": {field: "A"}}, "write an object's name: lowercase letters")
        for field in ("priorityClassName", "runtimeClassName", "serviceAccountName", "schedulerName")
    ),
    ({"podTemplate": {"imagePullSecrets": [{"name": "A"}]}}, "write an object's name: lowercase letters"),
    ({"podTemplate": {"securityContext": {"runAsUser": 0}}}, "should be greater than or equal to 1"),
    ({"podTemplate": {"affinity": {"nodeAfinity": {}}}}, "spec.podTemplate.affinity.nodeAfinity"),
    ({"hardware": {"fallback": {"coolDown": "soon"}}}, "write a duration such as 30s, 5m or 1h30m"),
    ({"hardware": {"fallback": {"recover": "Soon"}}}, "WhenIdle"),
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
    (
        {"cache": {"mode": "NodeLocal", "size": "1Gi"}},
        "mode NodeLocal keeps models in a directory of the node",
    ),
    (
        {"cache": {"mode": "Image", "claimName": "c"}, "model": {"source": "oci://host/m:1"}},
        "mode Image serves the model out of its image",
    ),
    ({"cache": {"mode": "Image"}}, "cache.mode Image mounts images out of registries"),
    (
        {
            "cache": {"mode": "Image"},
            "model": {
                "source": "oci://host/m:1",
                "variants": [{"hardware": "gpu", "source": "https://host/m.gguf"}],
            },
        },
        "cache.mode Image mounts images out of registries",
    ),
    ({"cache": {"prePull": True}}, "prePull brings models to nodes: write mode NodeLocal"),
    (
        {"cache": {"size": "1Gi", "accessModes": ["ReadOnlyMany"]}},
        "nobody could fill a claim that is only read",
    ),
    *(
        (
            {
                "observability": {
                    "canary": [{"name": "a", "prompt": "?", "expect": {"contains": "!"}, **wrong}]
                }
            },
            sentence,
        )
        for wrong, sentence in (
            ({"name": "A b"}, "write lowercase letters, digits and '-'"),
            ({"every": "5s"}, "write a duration of 10s or more, such as 5m or 1h"),
            ({"every": "soon"}, "write a duration of 10s or more, such as 5m or 1h"),
            ({"expect": {}}, "write one of contains, regex, jsonSchema and sameAsFirst"),
            (
                {"expect": {"contains": "!", "sameAsFirst": True}},
                "write one of contains, regex, jsonSchema and sameAsFirst",
            ),
            ({"expect": {"sameAsFirst": False}}, "write true, or another expectation"),
        )
    ),
    ({"observability": {"metrics": {"aliases": ["Ollama"]}}}, "vLLM"),
    (
        {"observability": {"tracing": {"endpoint": "collector:4317"}}},
        "write the collector's address: http://host:4318",
    ),
    ({"cache": {"claimName": "A"}}, "write an object's name: lowercase letters"),
    ({"cache": {"storageClassName": "A", "size": "1Gi"}}, "write an object's name: lowercase letters"),
    ({"cache": {"size": "big"}}, "write a quantity such as 500m, 2 or 4Gi"),
    (
        {"auth": {"mode": "None", "secretRef": {"name": "keys"}}},
        "mode None asks for no key: leave out secretRef",
    ),
    ({"auth": {"secretRef": {"name": "A"}}}, "write an object's name: lowercase letters"),
    (
        {"observability": {"serviceMonitor": {"interval": "often"}}},
        "write a duration such as 30s, 5m or 1h30m",
    ),
]
LOAD_BALANCER = {"type": "LoadBalancer", "loadBalancerClass": "example.com/internal"}
EDITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"cache": {"size": "2Gi", "storageClassName": "slow"}},
        {"cache": {"size": "2Gi", "storageClassName": "fast"}},
        "a claim can't change its storage class or access modes",
    ),
    (
        {"endpoint": LOAD_BALANCER},
        {"endpoint": {"type": "LoadBalancer"}},
        "a load balancer can't change its class: write type ClusterIP first",
    ),
]
ALLOWED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # The operator keeps the live claim's size: a refused expansion must be taken back by somebody.
    ({"cache": {"mode": "PVC", "size": "2Gi"}}, {"cache": {"mode": "PVC", "size": "1Gi"}}),
    ({"cache": {"size": "2Gi"}}, {"cache": {"size": "1Gi"}}),
    ({"cache": {"size": "2Gi", "storageClassName": "fast"}}, {"cache": {"mode": "NodeLocal"}}),
    ({"cache": {"claimName": "a"}}, {"cache": {"claimName": "a", "accessModes": ["ReadOnlyMany"]}}),
    ({"endpoint": LOAD_BALANCER}, {"endpoint": {"type": "ClusterIP"}}),
    ({"endpoint": LOAD_BALANCER}, {"endpoint": {**LOAD_BALANCER, "loadBalancerSourceRanges": ["::/0"]}}),
]
POD_TEMPLATE: dict[str, Any] = {
    "labels": {"team": "a", "app.kubernetes.io/version": "1"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "priorityClassName": "batch",
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {}},
                }
            ]
        },
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "runtimeClassName": "gvisor",
    "serviceAccountName": "models",
    "imagePullSecrets": [{"name": "registry"}],
    "schedulerName": "volcano",
    "securityContext": {"runAsUser": 1000680000, "runAsGroup": 0, "fsGroup": 1000680000},
}


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
    made = slm("a", namespace, **before)
    plane.kubectl("apply", "-f", "-", input=json.dumps(made))
    with pytest.raises(HarnessError) as refused:
        plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace, **after)))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("before", "after"), ALLOWED)
def test_what_can_be_changed_passes(plane, namespace, before, after) -> None:
    for spec in (before, after):
        plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace, **spec)))


def test_what_is_right_passes(plane) -> None:
    dry_run(plane, slm("a", "default"))


@pytest.mark.parametrize("source", ACCEPTED)
def test_every_scheme_passes(plane, source) -> None:
    mirrors = [
        {"source": "hf://", "mirror": "https://hub.corp/hf/"},
        {"source": "oci://docker.io/", "mirror": "oci://registry.corp/hub/"},
    ]
    variants = [{"hardware": "npu", "source": source}]
    dry_run(plane, slm("a", "default", model={"source": source, "variants": variants, "mirrors": mirrors}))


def test_every_field_of_a_pod_template_is_kept(plane, namespace) -> None:
    plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace, podTemplate=POD_TEMPLATE)))
    kept = json.loads(plane.kubectl("-n", namespace, "get", "slm", "a", "-o", "json"))["spec"]["podTemplate"]
    assert kept == POD_TEMPLATE
    Spec.model_validate(slm("a", namespace, podTemplate=kept)["spec"])


@pytest.mark.parametrize(
    "field",
    ["hostNetwork", "hostPID", "volumes", "containers", "automountServiceAccountToken", "nodeName"],
)
def test_a_pod_template_gives_no_rights_over_the_node(plane, field) -> None:
    with pytest.raises(HarnessError, match=rf"spec\.podTemplate\.{field}"):
        dry_run(plane, slm("a", "default", podTemplate={field: True}))


@pytest.mark.parametrize(
    "addresses", ["10.0.0.0/8", "192.168.1.7/32", "0.0.0.0/0", "2001:db8::/32", "::ffff:1.2.3.4/96"]
)
def test_ranges_of_addresses_pass(plane, addresses) -> None:
    dry_run(
        plane, slm("a", "default", endpoint={"type": "LoadBalancer", "loadBalancerSourceRanges": [addresses]})
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"source": "hf://a/b", "format": "ONNX"}},
        {"model": {"source": "hf://a/b", "format": "GGUF"}, "runtime": {"parallel": 2}},
        {"autoscaling": {"max": 2}},
        {
            "endpoint": {
                "gateway": {"parentRefs": [{"name": "g"}]},
                "imageOrigins": ["http://minio.a.svc:9000"],
            }
        },
    ],
)
def test_what_is_right_passes_without_the_rest(plane, spec) -> None:
    dry_run(plane, slm("a", "default", **spec))


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
