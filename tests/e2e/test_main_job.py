"""The main job on a real cluster: apply, tokens, edit, restart of the operator, delete."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import openai
import pytest

from tests.cluster import tools
from tests.e2e.audit import operator_writes
from tests.e2e.site import SMOLLM2, SMOLLM2_SHA256, Namespace, Site

pytestmark = pytest.mark.e2e

SPEC = {
    "model": {"name": "smollm2-135m", "source": SMOLLM2, "sha256": SMOLLM2_SHA256},
    "hardware": {"preference": ["npu", "gpu", "cpu"]},
    "runtime": {"contextLength": 2048},
}
ASKED = "What is the capital of France? Answer in one sentence."
QUESTION = [{"role": "user", "content": ASKED}]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ns(site: Site) -> Iterator[Namespace]:
    with site.namespace("main") as namespace:
        namespace.apply("smollm2", SPEC)
        namespace.wait_ready("smollm2")
        yield namespace


def ask(client: openai.OpenAI) -> str:
    answer = client.chat.completions.create(
        model="smollm2-135m", messages=QUESTION, temperature=0, max_tokens=16
    )
    return answer.choices[0].message.content or ""


def test_a_stock_client_gets_tokens_through_the_service(ns: Namespace) -> None:
    with ns.client("smollm2") as client:
        assert "Paris" in ask(client)
        chunks = list(
            client.chat.completions.create(
                model="smollm2-135m",
                messages=QUESTION,
                temperature=0,
                max_tokens=16,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert "Paris" in text
        assert len(chunks) > 3
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens > 1


def test_without_the_key_nothing_is_answered(ns: Namespace) -> None:
    with ns.client("smollm2", api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        ask(client)


def test_the_status_says_what_was_decided_and_measured(ns: Namespace) -> None:
    ns.site.eventually("what it runs on was reported", lambda: "acceleration" in ns.status("smollm2"))
    status = ns.status("smollm2")
    assert status["placement"]["selected"] == "cpu"
    assert {each["hardware"] for each in status["placement"]["rejected"]} >= {"npu-intel", "gpu-nvidia"}
    assert all(each["reason"] for each in status["placement"]["rejected"])
    assert status["model"]["architecture"] == "llama"
    assert status["model"]["sha256"] == SMOLLM2_SHA256
    assert status["acceleration"]["device"].startswith("cpu")
    assert status["performance"]["tokensPerSecond"] > 0
    assert status["readyReplicas"] == 1
    columns = ns.site.kubectl("get", "slm", "smollm2", "-n", ns.name)
    assert "Serving" in columns, columns


def test_the_command_line_asks_and_explains_it(ns: Namespace) -> None:
    def slm(*words: str) -> str:
        paths = [str(tools.kubernetes.path("kubectl").parent), os.environ["PATH"]]
        done = subprocess.run(
            [sys.executable, "-m", "kubectl_slm", "-n", ns.name, *words],
            env=os.environ | {"PATH": os.pathsep.join(paths), "KUBECONFIG": str(ns.site.cluster.kubeconfig)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Serving" in slm("list")
    assert slm("why", "smollm2").startswith("Serving: ")
    assert "Paris" in slm("chat", "smollm2", "--set", "temperature=0", "--set", "max_tokens=16", ASKED)
    (row,) = json.loads(slm("top", "-o", "json"))
    assert (row["name"], row["loaded"]) == ("smollm2", 1)
    assert row["residentBytes"] > 0
    assert slm("logs", "smollm2").strip()
    (measured,) = json.loads(slm("bench", "smollm2", "--streams", "1", "--tokens", "8", "-o", "json"))[
        "measured"
    ]
    assert measured["tokensPerSecond"] > 0
    (plan,) = json.loads(slm("plan", "-f", str(ROOT / "examples" / "smollm2.yaml"), "-o", "json"))
    assert plan["class"] == "cpu"
    assert "smollm2-135m" in slm("models")


def test_a_container_is_ready_soon_after_its_start(ns: Namespace) -> None:
    (pod,) = ns.pods("smollm2")
    started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    ready = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "True"
    seconds = (
        datetime.fromisoformat(ready["lastTransitionTime"]) - datetime.fromisoformat(started)
    ).total_seconds()
    speed = ns.status("smollm2")["performance"]
    print(
        f"\ncontainer start to ready: {seconds:.0f} s (whole seconds, as Kubernetes tells them); of these loading "
        f"{speed['loadSeconds']} s, the first token {speed['firstTokenMs']} ms"
    )


def test_an_edit_rolls_and_drops_no_request(ns: Namespace) -> None:
    before = {pod["metadata"]["uid"] for pod in ns.pods("smollm2")}
    stop = threading.Event()
    answers: list[str] = []
    failures: list[Exception] = []

    def keep_asking(client: openai.OpenAI) -> None:
        while not stop.is_set():
            try:
                answers.append(ask(client))
            except openai.OpenAIError as error:
                failures.append(error)

    with ns.client("smollm2", max_retries=0) as client:
        asking = threading.Thread(target=keep_asking, args=(client,))
        asking.start()
        try:
            ns.apply("smollm2", {**SPEC, "runtime": {"contextLength": 1024}})
            ns.wait_ready("smollm2")
            ns.site.eventually(
                "the old pod is gone",
                lambda: not before & {pod["metadata"]["uid"] for pod in ns.pods("smollm2")},
            )
            answered = len(answers)
            ns.site.eventually("the new pod answers", lambda: len(answers) > answered)
        finally:
            stop.set()
            asking.join()
    assert not failures
    (pod,) = ns.pods("smollm2")
    assert pod["metadata"]["uid"] not in before
    with ns.client("smollm2") as client, pytest.raises(openai.BadRequestError, match="1024"):
        client.chat.completions.create(
            model="smollm2-135m", messages=[{"role": "user", "content": "long " * 2000}]
        )


def test_a_restarted_operator_writes_nothing_and_rolls_nothing(ns: Namespace) -> None:
    pods = {pod["metadata"]["uid"] for pod in ns.pods("smollm2")}
    version = ns.resource("smollm2")["metadata"]["resourceVersion"]
    ns.site.scale_operator(0)
    with operator_writes(ns.site, ns.name) as writes:
        ns.site.scale_operator(1)
        ns.site.wait_until_caught_up()
    assert writes == []
    assert {pod["metadata"]["uid"] for pod in ns.pods("smollm2")} == pods
    assert ns.resource("smollm2")["metadata"]["resourceVersion"] == version


def test_deleting_needs_no_operator(ns: Namespace) -> None:
    site = ns.site
    ns.apply("short-lived", {**SPEC, "suspend": True})
    site.eventually("its Service is there", lambda: site.get("service", ns.name, "short-lived"))
    site.scale_operator(0)
    try:
        for name in ("smollm2", "short-lived"):
            site.kubectl("delete", "slm", name, "-n", ns.name, "--timeout=30s")
        kinds = "deployments,services,secrets,pods,jobs,servicemonitors,persistentvolumeclaims"
        site.eventually("every child is gone", lambda: not site.list(kinds, ns.name))
    finally:
        with operator_writes(site, ns.name) as writes:
            site.scale_operator(1)
            site.wait_until_caught_up()
    assert writes == []
    assert site.list("deployments,services,secrets", ns.name) == []
