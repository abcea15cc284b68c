"""Probes, metrics, logs, and what Kopf is told."""

import asyncio
import itertools
import json
import logging

import pytest
from kopf._cogs.structs.references import Resource
from kubernetes.aio.client.configuration import Configuration

from slm_operator import log, watches
from slm_operator.cluster.resources import AUTOSCALER, CONFIG_MAP, DAEMON_SET, OURS, SERVICE, WATCHED, watched
from slm_operator.health import STALL_LIMIT, Health, Vitals
from slm_operator.metrics import Metrics
from slm_operator.queue import Lane, WorkQueue
from slm_operator.settings import FetchSettings, Settings
from slm_operator.store import Store
from tests.sim.loop import simulate
from tests.unit.operator_edge.objects import child


def health(
    *,
    acting: bool = True,
    waiting: bool = False,
    hindrance: str | None = None,
    list_stalled: float = 0,
    queue_stalled: float = 0,
) -> Health:
    return Health(
        Vitals(
            acting=lambda: acting,
            waiting=lambda: waiting,
            hindrance=lambda: hindrance,
            list_stalled=lambda: list_stalled,
            queue_stalled=lambda: queue_stalled,
            list_interval=600,
        ),
        Metrics(),
    )


def test_alive_means_that_lists_are_tried_and_keys_finished():
    assert health().problem() is None
    assert "no list was tried for 1801 s" in (health(list_stalled=1801).problem() or "")
    assert "none was finished for 301 s" in (health(queue_stalled=STALL_LIMIT + 1).problem() or "")


def test_a_slow_operator_in_a_burst_is_alive():
    """The oldest key waits for an hour, and one after the other is finished."""

    async def scenario():
        queue: WorkQueue[int] = WorkQueue()
        for key in range(1000):
            queue.add(key, Lane.REPORT)
        for _ in range(720):
            key, _ = await queue.get()
            await asyncio.sleep(5)
            queue.done(key)
            assert queue.stalled() == 0
        assert queue.oldest() == 3600
        await asyncio.sleep(STALL_LIMIT + 1)
        assert queue.stalled() > STALL_LIMIT

    simulate(scenario())


def test_who_waits_for_the_lease_lists_nothing_and_is_well():
    assert health(acting=False, list_stalled=1e9).problem() is None


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        ({"acting": True}, 200, "acting"),
        ({"acting": False, "waiting": True}, 200, "waiting for the lease"),
        ({"acting": False}, 503, "starting"),
        ({"acting": False, "hindrance": "leases is forbidden"}, 503, "leases is forbidden"),
    ],
)
async def test_ready_is_who_acts_or_waits_behind_another(given, code, text):
    answer = await health(**given)._readyz(None)  # type: ignore[arg-type]
    assert (answer.status, answer.text) == (code, text)


def test_metrics_tell_what_happened():
    metrics = Metrics()
    metrics.reconciled("acted")
    metrics.requested("PATCH", "services", 200, 0.01)
    metrics.event("Pod")
    metrics.gauge("leader", "1 where this process acts", lambda: 1.0)
    text = metrics.render().decode()
    assert 'slm_operator_reconciles_total{result="acted"} 1.0' in text
    assert 'slm_operator_api_request_seconds_count{code="200",method="PATCH",resource="services"} 1.0' in text
    assert 'slm_operator_watch_events_total{kind="Pod"} 1.0' in text
    assert "slm_operator_leader 1.0" in text
    assert "process_resident_memory_bytes" in text


def test_a_log_line_is_one_json_object(capsys):
    log.configure("info")
    try:
        logging.getLogger("slm_operator").info("two\nlines", extra={"key": "demo/a"})
        logging.getLogger("kopf").info("chatter")
        try:
            int("broken")
        except ValueError:
            logging.getLogger("slm_operator").exception("failed")
    finally:
        logging.getLogger().handlers.clear()
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["message"], first["key"], first["level"]) == ("two\nlines", "demo/a", "info")
    assert "ValueError: invalid literal" in second["exception"]


def test_kopf_only_watches():
    settings = watches.settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert not settings.watching.initial_streaming
    assert settings.queueing.worker_limit is None


def test_kopf_selects_our_objects_on_the_server():
    selectors = watches.settings().watching.label_selectors
    for group, version, plural, wanted in (
        ("", "v1", "services", [OURS]),
        ("apps", "v1", "deployments", [OURS]),
        ("", "v1", "nodes", []),
        ("slm-operator.io", "v1alpha1", "slmdeployments", []),
    ):
        assert list(selectors.collect(Resource(group, version, plural))) == wanted


def test_backoffs_never_end_and_can_be_had_again():
    backoffs = watches.Backoffs()
    for _ in range(2):
        delays = list(itertools.islice(backoffs, 50))
        assert len(delays) == 50
        assert delays[0] <= 0.5
        assert max(delays) <= watches.LONGEST_BACKOFF


class Waker:
    def __init__(self) -> None:
        self.woken = []
        self.asked = []

    def wake(self, changes):
        self.woken += changes

    def ask(self, resource):
        self.asked.append(resource)


def test_every_event_goes_to_the_store_and_a_new_list_asks_for_a_resync():
    waker, store = Waker(), Store()
    watcher = watches.Watcher(store, waker, waker, lambda _kind: None)  # type: ignore[arg-type]
    watcher.take(SERVICE, {"type": None, "object": child("Service", 1)})
    assert (len(waker.woken), waker.asked) == (1, [SERVICE])
    watcher.take(SERVICE, {"type": "MODIFIED", "object": child("Service", 1)})
    assert (len(waker.woken), waker.asked) == (1, [SERVICE])
    watcher.take(SERVICE, {"type": "DELETED", "object": child("Service", 2)})
    assert store.get(SERVICE, "demo", "a") is None


def test_one_handler_a_kind():
    watcher = watches.Watcher(Store(), Waker(), Waker(), lambda _kind: None)  # type: ignore[arg-type]
    registry = watches.registry(watcher, Configuration())
    assert len(registry._watching.get_all_handlers()) == len(WATCHED)
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()


@pytest.mark.parametrize(
    ("ca_bundle", "node_cache", "unread"),
    [
        (None, None, {CONFIG_MAP, DAEMON_SET}),
        ("PEM", None, {DAEMON_SET}),
        (None, "/var/lib/slm-models", {CONFIG_MAP}),
        ("PEM", "/var/lib/slm-models", set()),
    ],
)
def test_what_only_some_settings_have_the_operator_make_is_read_only_with_these(
    ca_bundle, node_cache, unread
):
    fetch = FetchSettings(ca_bundle=ca_bundle)
    settings = Settings(runtime_image="r/i:1", classes=(), fetch=fetch, node_cache=node_cache)
    kinds = watched(settings)
    assert set(WATCHED) - set(kinds) == {AUTOSCALER, *unread}
    watcher = watches.Watcher(Store(), Waker(), Waker(), lambda _kind: None)  # type: ignore[arg-type]
    registry = watches.registry(watcher, Configuration(), kinds)
    assert len(registry._watching.get_all_handlers()) == len(kinds)


@pytest.mark.parametrize("header", ["bearer abc", "Bearer abc\n"])
async def test_kopf_logs_in_with_our_token(header):
    info = await watches.login(Configuration(host="https://api", api_key={"BearerToken": header}))
    assert info.server == "https://api"
    assert (info.scheme or "").lower() == "bearer"
    assert info.token == "abc"


async def test_kopf_logs_in_with_our_certificate():
    info = await watches.login(Configuration(host="https://api", cert_file="crt", key_file="key"))
    assert (info.certificate_path, info.private_key_path, info.token) == ("crt", "key", None)
