"""`make demo`: from nothing to tokens on a real cluster, with every step on the screen; `down` takes it away.

Each step looks at what is there before it does anything, so a second run changes nothing that it need not.
"""

import base64
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai
import yaml

from tests.cluster import Cluster, HarnessError, cache, chart, images, select, tools

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "examples" / "smollm2.yaml"
NAMESPACE = "demo"
SYSTEM_NAMESPACE = "slm-operator-system"
CRD = "slmdeployments.slm-operator.io"
RELEASE_OF = "meta.helm.sh/release-namespace"
QUESTION = "What is the capital of France? Answer in one sentence."
READY_WITHIN = 900.0
"""Seconds; a first fetch over a slow line is the longest part."""

TERMINAL = sys.stdout.isatty()


def headline(number: int, title: str, text: str) -> None:
    print(f" {number}/6 {title:<12} {text}", flush=True)


def detail(title: str, text: str) -> None:
    print(f"      {title:<13} {text}", flush=True)


@contextmanager
def timed() -> Iterator[list[float]]:
    """The seconds that the block took, in a list that is filled when it ends."""
    seconds: list[float] = []
    started = time.monotonic()
    yield seconds
    seconds.append(time.monotonic() - started)


def install(cluster: Cluster, loaded: Mapping[str, str]) -> str:
    """Install or upgrade the chart, unless this very chart with these very values is what runs."""
    wanted = chart.values(loaded)
    content = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode())
    for path in sorted(path for path in chart.CHART.rglob("*") if path.is_file()):
        content.update(path.read_bytes())
    mark = f"chart and values {content.hexdigest()[:16]}"
    releases = json.loads(
        cluster.helm("list", "-n", SYSTEM_NAMESPACE, "-o", "json", "--filter", "^slm-operator$")
    )
    if releases and releases[0]["status"] == "deployed":
        history = json.loads(
            cluster.helm("history", "slm-operator", "-n", SYSTEM_NAMESPACE, "--max", "1", "-o", "json")
        )
        if history and history[-1]["description"] == mark:
            return "unchanged"
    with TemporaryDirectory() as folder:
        file = chart.write(wanted, Path(folder) / "values.yaml")
        cluster.helm(
            *("upgrade", "--install", "slm-operator", str(chart.CHART), "--namespace", SYSTEM_NAMESPACE),
            *("--create-namespace", "--values", str(file), "--description", mark),
            *("--wait", "--timeout", "3m"),
        )
    return "installed" if not releases else "upgraded"


def bar(percent: float, width: int = 20) -> str:
    full = round(width * min(max(percent, 0), 100) / 100)
    return "█" * full + "░" * (width - full)


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions", []) if each["type"] == kind), {})


class Screen:
    """Prints what is new in a status; on a terminal the download's line is drawn over itself."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._drawing = False

    def line(self, title: str, text: str) -> None:
        if not text or self._shown.get(title) == text:
            return
        self._shown[title] = text
        self._end_drawing()
        detail(title, text)

    def draw(self, title: str, text: str) -> None:
        if self._shown.get(title) == text:
            return
        self._shown[title] = text
        if TERMINAL:
            print(f"\r      {title:<13} {text}\033[K", end="", flush=True)
            self._drawing = True
        else:
            detail(title, text)

    def _end_drawing(self) -> None:
        if self._drawing:
            print()
            self._drawing = False


def show(screen: Screen, status: Mapping[str, Any]) -> None:
    """Show one status: what was decided, what is being fetched, how the conditions stand."""
    placed = condition(status, "Placed")
    if placed.get("status") == "True":
        screen.line("Placed", status.get("placement", {}).get("reason") or placed["message"])
    screen.line("Memory", status.get("memory", {}).get("explanation", ""))
    ready = condition(status, "Ready")
    download = status.get("download", {})
    if ready.get("reason") == "Fetching" and download.get("percent") is not None:
        rate = (download.get("bytesPerSecond") or 0) / 1e6
        left = download.get("etaSeconds")
        eta = f"  {left:.0f} s left" if left is not None else ""
        screen.draw(
            "Fetching", f"{bar(download['percent'])} {download['percent']:3.0f} %  {rate:.0f} MB/s{eta}"
        )
    elif ready.get("status") == "True":
        screen.line("Ready", measured(status))
    elif ready.get("reason"):
        screen.line(ready["reason"], ready.get("message", ""))


def measured(status: Mapping[str, Any]) -> str:
    """What the runtime reported of its first tokens; the figures follow readiness by a moment."""
    speed = status.get("performance")
    device = status.get("acceleration", {}).get("device")
    if not speed or not device:
        return ""
    rate = speed["tokensPerSecond"]
    return f"first token after {speed['firstTokenMs'] / 1000:.2f} s, {rate:.0f} tokens/s on {device}"


def wait_until_ready(cluster: Cluster, name: str) -> Mapping[str, Any]:
    screen = Screen()
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        resource = json.loads(cluster.kubectl("get", "slm", name, "-n", NAMESPACE, "-o", "json"))
        status = resource.get("status", {})
        show(screen, status)
        generation = resource["metadata"]["generation"]
        ready = condition(status, "Ready")
        if (
            ready.get("status") == "True"
            and status.get("observedGeneration") == generation
            and "performance" in status
        ):
            return status
        if condition(status, "Stalled").get("status") == "True":
            raise HarnessError(f"{name} can't become ready: {condition(status, 'Stalled')['message']}")
        time.sleep(0.5)
    raise HarnessError(f"{name} wasn't ready within {READY_WITHIN:.0f} s: kubectl describe slm {name}")


def api_key(cluster: Cluster, name: str) -> str:
    secret = json.loads(cluster.kubectl("get", "secret", f"{name}-api-key", "-n", NAMESPACE, "-o", "json"))
    return base64.b64decode(next(iter(secret["data"].values()))).decode()


def ask(url: str, key: str, model: str) -> str:
    """Stream one answer to the screen with a stock client; return its two speeds in words."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
    print(f"      > {QUESTION}\n      ", end="", flush=True)
    started = time.monotonic()
    first = None
    tokens = 0
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=120,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            first = first or time.monotonic()
            print(text, end="", flush=True)
    ended = time.monotonic()
    print()
    if first is None:
        raise HarnessError("the model answered without any text")
    rate = (tokens - 1) / (ended - first) if tokens > 1 else 0
    return f"first token after {first - started:.2f} s, {tokens} tokens, {rate:.0f} tokens/s"


def demo() -> None:
    cluster = select()
    with timed() as seconds:
        tools.ensure(tools.OF_CLUSTER[cluster.kind])
    headline(
        1, "tools", f"helm, Kubernetes {tools.KUBERNETES} components, llama.cpp wheel  {seconds[0]:.0f} s"
    )
    with timed() as seconds:
        built = images.ensure()
    sizes = " · ".join(f"{name} {image.size / 1e6:.0f} MB" for name, image in built.items())
    headline(2, "images", f"{sizes}  {seconds[0]:.0f} s")
    with timed() as seconds:
        cluster.up()
        loaded = {name: cluster.load_image(image.archive, image.name) for name, image in built.items()}
    headline(3, "cluster", f"{cluster.kind}, node {cluster.node_name}  {seconds[0]:.0f} s")
    with timed() as seconds:
        outcome = install(cluster, loaded)
    headline(
        4,
        "operator",
        f"helm upgrade --install slm-operator charts/slm-operator ({outcome})  {seconds[0]:.0f} s",
    )
    headline(5, "model", "kubectl apply -f examples/smollm2.yaml")
    resource = yaml.safe_load(MANIFEST.read_text())
    name = resource["metadata"]["name"]
    cluster.kubectl("apply", "-f", "-", input=json.dumps(namespace_manifest()))
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(MANIFEST))
    status = wait_until_ready(cluster, name)
    headline(6, "a question", f"POST {status['endpoint']}/chat/completions")
    with cluster.reach(NAMESPACE, name, 8080) as address:
        detail("", ask(f"http://{address}", api_key(cluster, name), resource["spec"]["model"]["name"]))
    print(f"\n$ kubectl get slm -n {NAMESPACE}")
    print(cluster.kubectl("get", "slm", "-n", NAMESPACE))
    print(
        "The cluster stays up: `python -m tests.cluster kubectl ...` talks to it, `make demo-down` takes it away."
    )


def take_away(cluster: Cluster) -> None:
    """Take the demo's cluster away; from somebody else's, what the demo made, and the CRD unless others use it."""
    if cluster.kind == "kubeconfig":
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
        release = ("slm-operator", "--namespace", SYSTEM_NAMESPACE)
        cluster.helm("uninstall", *release, "--ignore-not-found", "--wait")
        crd = cluster.kubectl("get", "crd", CRD, "--ignore-not-found", "-o", "json")
        if crd and json.loads(crd)["metadata"].get("annotations", {}).get(RELEASE_OF) == SYSTEM_NAMESPACE:
            if cluster.kubectl("get", "slm", "--all-namespaces", "--output", "name"):
                print(f"{CRD} stays: there are SLMDeployments in other namespaces")
            else:
                cluster.kubectl("delete", "crd", CRD)
        cluster.kubectl("delete", "namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--timeout=180s")
    cluster.down()


def namespace_manifest() -> dict[str, Any]:
    """The demo's namespace, which refuses pods that don't meet Pod Security `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


if __name__ == "__main__":
    try:
        with cache.lock("demo"):
            take_away(select()) if sys.argv[1:] == ["down"] else demo()
    except HarnessError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; `make demo` goes on from here, `make demo-down` takes everything away")
