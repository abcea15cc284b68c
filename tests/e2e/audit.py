"""What the operator wrote, from the API server's own audit log."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.site import OPERATOR, SYSTEM_NAMESPACE, Site
from tests.support import audit

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
OPERATOR_USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{OPERATOR}"


@contextmanager
def operator_writes(site: Site, namespace: str) -> Iterator[list[str]]:
    """The operator's writes in *namespace* during the block, `verb resource/subresource name` each."""
    log = site.cluster.audit_log
    if log is None:
        pytest.skip("the audit log of this cluster can't be read")
    begin = audit.end(log)
    writes: list[str] = []
    yield writes
    for event in audit.events(log, begin):
        target = event.get("objectRef", {})
        if (
            event["stage"] == "ResponseComplete"
            and event["user"]["username"] == OPERATOR_USER
            and event["verb"] in WRITES
            and target.get("namespace") == namespace
        ):
            resource = f"{target['resource']}/{target.get('subresource', '')}"
            writes.append(f"{event['verb']} {resource} {target.get('name')}")
