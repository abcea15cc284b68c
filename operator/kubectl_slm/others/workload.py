"""A Kubernetes Deployment of an Ollama or Foundry server, as far as it says what an SLMDeployment says."""

from collections.abc import Mapping
from typing import Any, Final

from kubectl_slm.others.bounds import number
from kubectl_slm.others.converted import Draft, NotConverted
from kubectl_slm.others.environment import configure as by_environment

KINDS: Final = frozenset({"Deployment", "StatefulSet"})


def configure(draft: Draft, document: Mapping[str, Any]) -> None:
    """Replicas, resources, port and environment of its one container.

    Raises
    ------
    NotConverted
    """
    spec = _map(document.get("spec"))
    containers = _map(_map(spec.get("template")).get("spec")).get("containers")
    if not isinstance(containers, list) or len(containers) != 1:
        raise NotConverted(
            None,
            f"the {document.get('kind')} has not exactly one container",
            "Leave the one that serves the model in it.",
        )
    container = _map(containers[0])
    _put(draft, "replicas", spec.get("replicas"))
    resources = {
        kind: {name: str(amount) for name, amount in _map(given).items()}
        for kind, given in _map(container.get("resources")).items()
        if kind in {"requests", "limits"} and given
    }
    if resources:
        draft.put("resources", resources)
        draft.note(
            None,
            "resources",
            "left out, they are fitted to the model from its header, which is safer than any figure",
        )
    ports = container.get("ports")
    if isinstance(ports, list) and ports:
        _put(draft, "endpoint.port", _map(ports[0]).get("containerPort"))
    given = container.get("env")
    entries = [_map(each) for each in given] if isinstance(given, list) else []
    by_environment(draft, [(None, str(each.get("name")), str(each.get("value", ""))) for each in entries])


def _put(draft: Draft, path: str, value: object) -> None:
    if value is None:
        return
    try:
        draft.put(path, number(path, value))
    except ValueError as error:
        draft.note(None, f"{path} {value}", str(error))


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
