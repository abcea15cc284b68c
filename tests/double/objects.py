"""Objects as small as the API server takes them, and a Deployment and a Job with all that ours have."""

from typing import Any

from slm_operator.crd import names
from tests.double.stage import Stage

Doc = dict[str, Any]


def head(stage: Stage, api_version: str, kind: str, **metadata: Any) -> Doc:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": stage.name, "namespace": stage.namespace, **metadata},
    }


def owner(uid: str, *, controller: bool = True) -> Doc:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": "a",
        "uid": uid,
        "controller": controller,
        "blockOwnerDeletion": False,
    }


def config_map(stage: Stage, data: dict[str, str], **metadata: Any) -> Doc:
    return {**head(stage, "v1", "ConfigMap", **metadata), "data": data}


def secret(stage: Stage) -> Doc:
    return {**head(stage, "v1", "Secret"), "stringData": {"api-key": "random"}}


def claim(stage: Stage, size: str = "1Gi", **metadata: Any) -> Doc:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {**head(stage, "v1", "PersistentVolumeClaim", **metadata), "spec": spec}


def service(stage: Stage, *ports: Doc, **metadata: Any) -> Doc:
    spec = {"selector": {"app": "a"}, "ports": list(ports) or [port()]}
    return {**head(stage, "v1", "Service", **metadata), "spec": spec}


def port(number: int = 80, name: str = "http") -> Doc:
    return {"name": name, "port": number, "targetPort": "api", "protocol": "TCP"}


def container(name: str = "serve", **more: Any) -> Doc:
    return {"name": name, "image": "runtime:1", **more}


def deployment(stage: Stage, *containers: Doc, **spec: Any) -> Doc:
    pods = {"containers": list(containers) or [container()]}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pods}
    selector = {"matchLabels": {"app": "a"}}
    return {
        **head(stage, "apps/v1", "Deployment"),
        "spec": {"selector": selector, "template": template, **spec},
    }


def job(stage: Stage, image: str = "runtime:1") -> Doc:
    template = {"spec": {"restartPolicy": "OnFailure", "containers": [container("pull", image=image)]}}
    return {**head(stage, "batch/v1", "Job"), "spec": {"backoffLimit": 7, "template": template}}


def budget(stage: Stage, at_most: int = 1) -> Doc:
    spec = {"maxUnavailable": at_most, "selector": {"matchLabels": {"app": "a"}}}
    return {**head(stage, "policy/v1", "PodDisruptionBudget"), "spec": spec}


def revision(stage: Stage, image: str = "runtime:1", number: int = 1) -> Doc:
    data = {"class": {"name": "cpu"}, "image": image}
    return {**head(stage, "apps/v1", "ControllerRevision"), "data": data, "revision": number}


def monitor(stage: Stage) -> Doc:
    spec = {
        "selector": {"matchLabels": {"app": "a"}},
        "endpoints": [{"targetPort": 9090, "path": "/metrics", "interval": "30s"}],
    }
    return {**head(stage, "monitoring.coreos.com/v1", "ServiceMonitor", labels={"app": "a"}), "spec": spec}


def slm(stage: Stage, **spec: Any) -> Doc:
    model = {"source": "https://models.example.com/m.gguf"}
    return {**head(stage, names.API_VERSION, names.KIND), "spec": {"model": model, **spec}}


def whole_pod() -> Doc:
    """A pod with all that the API server fills in or writes in another way."""
    probe = {"httpGet": {"path": "/ready", "port": "ops"}, "periodSeconds": 3}
    tight = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 45,
        "initContainers": [
            {
                "name": "fetch",
                "image": "registry.example.com:5000/runtime",
                "env": [{"name": "A", "value": "1"}],
                "resources": {
                    "requests": {"cpu": "0.25", "memory": "1024Mi"},
                    "limits": {"memory": "1024Mi"},
                },
                "securityContext": tight,
            }
        ],
        "containers": [
            {
                "name": "serve",
                "image": "runtime:1",
                "command": ["slm-runtime", "serve"],
                "ports": [{"name": "api", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "1000m"}, "limits": {"example.com/npu": "1"}},
                "readinessProbe": probe,
                "startupProbe": {**probe, "failureThreshold": 60, "timeoutSeconds": 5},
                "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
            }
        ],
        "volumes": [
            {"name": "models", "emptyDir": {"sizeLimit": "2048Mi"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "ca", "configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "models"}},
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": "a"}},
            }
        ],
    }


def whole_deployment(stage: Stage, **spec: Any) -> Doc:
    document = deployment(stage, **spec)
    document["metadata"] |= {
        "labels": {"app": "a"},
        "annotations": {"note": "x"},
        "ownerReferences": [owner("11111111-2222-3333-4444-555555555555")],
    }
    document["spec"]["template"]["spec"] = whole_pod()
    return document


def whole_job(stage: Stage) -> Doc:
    document = job(stage)
    document["metadata"]["labels"] = {"app": "a"}
    document["spec"]["template"] = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {**whole_pod(), "restartPolicy": "OnFailure"},
    }
    return document
