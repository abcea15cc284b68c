"""`python -m bench.operator.memory [--size 5000]`: what the store takes for SLMDeployments with all that belongs to them.

The objects are the operator's own, filled up to what an API server and its controllers make of them.
"""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bench.operator.bare import UID, bodies
from bench.operator.stage import NAMESPACE
from slm_operator.cluster.resources import (
    CONFIG_MAP,
    DEPLOYMENT,
    NODE,
    POD,
    SERVICE,
    SLM_DEPLOYMENT,
    Resource,
)
from slm_operator.decide import decide
from slm_operator.settings import Settings
from slm_operator.store import Key, Store
from tests.apiserver.kubelet import LABEL, running
from tests.apiserver.operator import SETTINGS, slm
from tests.sim.schema import admitted

KINDS = {"deployments": DEPLOYMENT, "services": SERVICE}
TIME = "2026-01-01T00:00:00Z"


def owned_fields(value: Any) -> dict[str, Any]:
    """As managedFields write them."""
    if not isinstance(value, dict):
        return {}
    return {f"f:{key}": owned_fields(each) for key, each in value.items()}


def objects(number: int) -> Iterator[tuple[Resource, dict[str, Any]]]:
    """One SLMDeployment that serves, and its children and pod."""
    name, uid = f"b{number}", f"{number:08}-0000-0000-0000-000000000000"
    made = {
        path: orjson.loads(body.replace(UID.encode(), uid.encode())) for path, body in bodies(name).items()
    }
    status = next(each["status"] for path, each in made.items() if path.endswith("/status"))
    resource = {**admitted(slm(name, NAMESPACE)), "status": status}
    resource["metadata"] |= {"uid": uid, "generation": 1}
    yield SLM_DEPLOYMENT, resource
    for path, child in made.items():
        kind = KINDS.get(path.split("/")[-2])
        if kind is None:
            continue
        child["metadata"]["uid"] = f"{kind.plural}-{uid}"
        if kind is DEPLOYMENT:
            template = child["spec"]["template"]
            pod: dict[str, Any] = {"metadata": {**template["metadata"]}, "spec": {**template["spec"]}}
            pod["metadata"] |= {"name": f"{name}-abcdef-12345", "namespace": NAMESPACE, "uid": f"pod-{uid}"}
            pod["spec"]["nodeName"] = "fake"
            pod["status"] = {**running(pod), "podIP": "10.0.0.1", "hostIP": "10.0.0.2"}
            history = {"data": {"template.json": orjson.dumps(template).decode()}}
            child["status"] = {
                "replicas": 1,
                "readyReplicas": 1,
                "updatedReplicas": 1,
                "observedGeneration": 1,
            }
            yield POD, pod
            metadata = {**child["metadata"], "uid": f"revision-{uid}"}
            yield CONFIG_MAP, {"metadata": metadata, **history}
        yield kind, child


def node(number: int) -> dict[str, Any]:
    """With as many labels and images as a kubelet and a cloud give it."""
    labels = {f"cloud.example.com/label-{each}": f"value-{each}" for each in range(20)}
    labels |= {LABEL: "fake", "kubernetes.io/hostname": f"n{number}"}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "metadata": {"name": f"n{number}", "uid": f"n{number}", "labels": labels},
        "spec": {},
        "status": {"allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.operator.memory", description=__doc__)
    parser.add_argument("--size", type=int, default=5000)
    size = parser.parse_args().size
    settings = Settings.model_validate(SETTINGS)
    store, revision, taken, count = Store(settings.classes), 0, 0.0, 0
    list(objects(0))
    before = resident_mib()
    for number in range(size):
        for resource, document in (*objects(number), (NODE, node(number))):
            revision += 1
            document["metadata"]["resourceVersion"] = str(revision)
            managed = {
                "manager": "slm-operator",
                "operation": "Apply",
                "time": TIME,
                "fieldsV1": owned_fields(document),
            }
            document["metadata"]["managedFields"] = [managed]
            # As they come from the wire: nothing is shared.
            fresh = orjson.loads(orjson.dumps(document))
            start = time.process_time()
            store.observe(resource, fresh)
            taken += time.process_time() - start
            count += 1
    print(
        f"{resident_mib() - before:.0f} MiB for {size} of each; {1e6 * taken / count:.0f} µs to take an object in"
    )
    start = time.process_time()
    snapshots = [
        store.snapshot(Key(NAMESPACE, f"b{number}"), settings, datetime.now(UTC)) for number in range(500)
    ]
    print(f"{1e6 * (time.process_time() - start) / 500:.0f} µs a snapshot")
    start = time.process_time()
    for snapshot in snapshots:
        assert snapshot is not None
        decide(snapshot)
    print(f"{1e6 * (time.process_time() - start) / 500:.0f} µs a decision")


if __name__ == "__main__":
    main()
