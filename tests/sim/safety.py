"""What may never be, not even for a moment: checked over the whole history, step by step."""

from dataclasses import dataclass, field
from typing import Any

from slm_operator.crd import names
from tests.sim.cluster import Event, Ref
from tests.sim.pods import is_ready, places_of
from tests.sim.volumes import folder
from tests.sim.world import World

_DELETED = {
    "Job",
    "DaemonSet",
    "ControllerRevision",
    "PodDisruptionBudget",
    "ServiceMonitor",
    "HorizontalPodAutoscaler",
    "ScaledObject",
    "HTTPRoute",
    "InferencePool",
    "ConfigMap",
    "PersistentVolumeClaim",
}
"""What the operator may delete: never what serves, nor the keys."""


@dataclass
class Safety:
    """Call it after each step; it looks at the events since the last one."""

    _position: int = 0
    _written: int = 0
    _selectors: dict[str, Any] = field(default_factory=dict)
    _observed: dict[str, int] = field(default_factory=dict)
    _serving: dict[Ref, tuple[str, int]] = field(default_factory=dict)

    def __call__(self, world: World) -> None:
        self._check_models(world)
        history = world.cluster.history
        for event in history[self._position :]:
            self._check(event)
        self._position = len(history)
        for write in world.cluster.writes[self._written :]:
            if write.by == "slm-operator":
                assert write.ref.kind not in {"Pod", "Node", "ReplicaSet"}, write
                assert write.verb != "delete" or write.ref.kind in _DELETED, write
        self._written = len(world.cluster.writes)

    def _check_models(self, world: World) -> None:
        """What runs finds its model where it was fetched to, also when its container is started anew."""
        pods = world.controllers.pods
        for ref, pod in world.cluster.of("Pod"):
            if is_ready(pod):
                for place in places_of(ref, pod):
                    assert folder(pod) in pods.volumes.models[place], "a model was removed that is served"

    def _check(self, event: Event) -> None:
        document = event.document
        metadata = document["metadata"]
        if event.ref.kind == "Deployment":
            selector = self._selectors.setdefault(metadata["uid"], document["spec"]["selector"])
            assert document["spec"]["selector"] == selector, "a selector changed"
            self._check_serving(event)
        if event.ref.kind == names.KIND and event.type != "DELETED":
            self._check_status(metadata, document.get("status") or {})

    def _check_status(self, metadata: Any, status: Any) -> None:
        observed = status.get("observedGeneration", -1)
        assert observed >= self._observed.get(metadata["uid"], -1), "observedGeneration went back"
        assert observed <= metadata["generation"]
        self._observed[metadata["uid"]] = observed
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        ready = conditions.get("Ready")
        if ready is not None and ready["status"] == "True":
            assert ready["observedGeneration"] == observed
            assert ("Stalled" in conditions) is (ready["reason"] == "RolledBack")
            assert "Reconciling" not in conditions
        available = conditions.get("Available")
        if available is not None and available["status"] == "True":
            assert status.get("readyReplicas", 0) >= 1

    def _check_serving(self, event: Event) -> None:
        """What serves goes on serving, unless it was told to stop or its volume or device allows only one."""
        spec, status = event.document["spec"], event.document.get("status") or {}
        ready = status.get("readyReplicas", 0)
        uid, before = self._serving.get(event.ref, ("", 0))
        rolling = (spec.get("strategy") or {}).get("type") != "Recreate"
        if uid == event.document["metadata"]["uid"] and before and rolling and spec["replicas"]:
            assert ready >= 1, "nothing serves any more"
        self._serving[event.ref] = (event.document["metadata"]["uid"], ready if spec["replicas"] else 0)
