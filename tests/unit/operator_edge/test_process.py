"""Probes, metrics, logs, and what Kopf is told."""

import itertools
import json
import logging

import pytest
from kopf._cogs.structs.references import Resource
from kubernetes.aio.client.configuration import Configuration

from slm_operator import handlers, log
from slm_operator.cluster.resources import CONFIG_MAP, OURS, SERVICE, WATCHED, watched
from slm_operator.health import LAG_LIMIT, WAIT_LIMIT, Health, Vitals
from slm_operator.metrics import Metrics
from slm_operator.settings import FetchSettings, Settings
from slm_operator.store import Store
from tests.unit.operator_edge.objects import child


def health(
    *, acting: bool = True, waiting: bool = False, list_age: float = 0, queue_age: float = 0
) -> Health:
    return Health(
        Vitals(
            acting=lambda: acting,
            waiting=lambda: waiting,
            list_age=lambda: list_age,
            queue_age=lambda: queue_age,
            list_interval=600,
        ),
        Metrics(),
    )


def test_alive_means_turning_listing_and_working():
    assert health().problem() is None
    assert "the last list is 1801 s old" in (health(list_age=1801).problem() or "")
    assert "waited for 601 s" in (health(queue_age=WAIT_LIMIT + 1).problem() or "")
    late = health(acting=False)
    late._lag = LAG_LIMIT + 1
    assert "the event loop was 11.0 s late" in (late.problem() or "")


def test_who_waits_for_the_lease_lists_nothing_and_is_well():
    assert health(acting=False, list_age=1e9).problem() is None


async def test_ready_is_who_acts_or_waits():
    for acting, waiting, code in ((True, False, 200), (False, True, 200), (False, False, 503)):
        answer = await health(acting=acting, waiting=waiting)._readyz(None)  # type: ignore[arg-type]
        assert answer.status == code


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
    settings = handlers.settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert not settings.watching.initial_streaming
    assert settings.queueing.worker_limit is None


def test_kopf_selects_our_objects_on_the_server():
    selectors = handlers.settings().watching.label_selectors
    for group, version, plural, wanted in (
        ("", "v1", "services", [OURS]),
        ("apps", "v1", "deployments", [OURS]),
        ("", "v1", "nodes", []),
        ("slm-operator.io", "v1alpha1", "slmdeployments", []),
    ):
        assert list(selectors.collect(Resource(group, version, plural))) == wanted


def test_backoffs_never_end_and_can_be_had_again():
    backoffs = handlers.Backoffs()
    for _ in range(2):
        delays = list(itertools.islice(backoffs, 50))
        assert len(delays) == 50
        assert delays[0] <= 0.5
        assert max(delays) <= handlers.LONGEST_BACKOFF


class Waker:
    def __init__(self) -> None:
        self.woken = []
        self.asked = 0

    def wake(self, changes):
        self.woken += changes

    def ask(self):
        self.asked += 1


def test_every_event_goes_to_the_store_and_a_new_list_asks_for_a_resync():
    waker, store = Waker(), Store()
    watcher = handlers.Watcher(store, waker, waker, lambda _kind: None)  # type: ignore[arg-type]
    watcher.take(SERVICE, {"type": None, "object": child("Service", 1)})
    assert (len(waker.woken), waker.asked) == (1, 1)
    watcher.take(SERVICE, {"type": "MODIFIED", "object": child("Service", 1)})
    assert (len(waker.woken), waker.asked) == (1, 1)
    watcher.take(SERVICE, {"type": "DELETED", "object": child("Service", 2)})
    assert store.get(SERVICE, "demo", "a") is None


def test_one_handler_a_kind():
    watcher = handlers.Watcher(Store(), Waker(), Waker(), lambda _kind: None)  # type: ignore[arg-type]
    registry = handlers.registry(watcher, Configuration())
    assert len(registry._watching.get_all_handlers()) == len(WATCHED)
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()


@pytest.mark.parametrize("ca_bundle", [None, "PEM"])
def test_config_maps_are_read_only_where_the_operator_makes_some(ca_bundle):
    settings = Settings(runtime_image="r/i:1", classes=(), fetch=FetchSettings(ca_bundle=ca_bundle))
    kinds = watched(settings)
    assert set(WATCHED) - set(kinds) == (set() if ca_bundle else {CONFIG_MAP})
    watcher = handlers.Watcher(Store(), Waker(), Waker(), lambda _kind: None)  # type: ignore[arg-type]
    registry = handlers.registry(watcher, Configuration(), kinds)
    assert len(registry._watching.get_all_handlers()) == len(kinds)


@pytest.mark.parametrize("header", ["bearer abc", "Bearer abc\n"])
async def test_kopf_logs_in_with_our_token(header):
    info = await handlers.login(Configuration(host="https://api", api_key={"BearerToken": header}))
    assert info.server == "https://api"
    assert (info.scheme or "").lower() == "bearer"
    assert info.token == "abc"


async def test_kopf_logs_in_with_our_certificate():
    info = await handlers.login(Configuration(host="https://api", cert_file="crt", key_file="key"))
    assert (info.certificate_path, info.private_key_path, info.token) == ("crt", "key", None)
