"""The programs that make a cluster, each compiled once from its Go module.

Nothing is downloaded as a binary: the Go module proxy that the machine already
uses serves the sources, and the versions here are the ones that work together.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cache, gotoolchain
from tests.cluster.commands import run
from tests.cluster.progress import say

KUBERNETES = "1.34.4"
CONTAINERD = "2.2.9"
HELM = "3.19.5"
KIND = "0.30.0"
PROMETHEUS_OPERATOR = "0.85.0"
KEDA = "2.17.2"
GATEWAY_API = "1.3.0"
INFERENCE_EXTENSION = "1.0.0"
VERSITYGW = "1.8.0"
PROMETHEUS = "0.316.0"
"""Release 3.16.0, as its module is numbered; the first that replaces no module, and so can be installed."""
OLLAMA = "0.5.7"
"""The last whose module has all that it is built of."""

MODULES = Path(__file__).parent / "go"
STRIPPED = "-s -w"
KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
)


@dataclass(frozen=True)
class Tool:
    """A set of programs that are built together.

    ``build`` fills an empty folder with the binaries named in ``programs``;
    ``inputs`` is all that decides what they are.
    """

    name: str
    programs: tuple[str, ...]
    inputs: dict[str, str]
    build: Callable[[Path], None]
    note: str
    gib: float = 2.0

    def _identity(self) -> dict[str, str]:
        return {**self.inputs, "machine": os.uname().machine, "system": os.uname().sysname}

    def is_built(self) -> bool:
        return cache.place("tools", self.name, self._identity()).is_dir()

    def folder(self) -> Path:
        """Where the binaries lie; they are built first if need be."""
        return cache.built("tools", self.name, self._identity(), self.build, note=self.note, gib=self.gib)

    def path(self, program: str | None = None) -> Path:
        """Path of one program of the set (the first by default)."""
        return self.folder() / (program or self.programs[0])


def _ours(
    directory: str, programs: tuple[str, ...], note: str, *, flags: str = STRIPPED, gib: float = 2
) -> Tool:
    """Make one binary of our module *directory*, under the first name; the others are links to it."""
    sources = [path for path in (MODULES / directory).iterdir() if path.suffix in {".go", ".mod", ".sum"}]

    def build(folder: Path) -> None:
        target = folder / programs[0]
        argv: list[str | Path] = [gotoolchain.go(), "build", "-ldflags", flags, "-o", target, "."]
        run(argv, cwd=MODULES / directory, env=gotoolchain.environment())
        for program in programs[1:]:
            (folder / program).symlink_to(programs[0])

    inputs = {"sources": cache.digest_of_files(sources, MODULES), "flags": flags}
    return Tool(directory, programs, inputs, build, note, gib)


def _released(
    name: str, packages: dict[str, str], note: str, flags: str, *, cgo: bool = False, tags: str = ""
) -> Tool:
    """Make binaries of released main packages, given as {program: package@version}.

    ``cgo``: parts of it are in C, and a compiler is needed. ``tags``: build constraints.
    """

    def build(folder: Path) -> None:
        env = {**gotoolchain.environment(), "GOBIN": str(folder), "CGO_ENABLED": str(int(cgo))}
        for package in packages.values():
            run([gotoolchain.go(), "install", "-tags", tags, "-ldflags", flags, package], env=env)

    inputs = {**packages, "flags": flags, **({"tags": tags} if tags else {})}
    return Tool(name, tuple(packages), inputs, build, note)


_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_KUBERNETES_FLAGS = (
    f"{STRIPPED} -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} "
    f"-X {_VERSION}.gitMinor={_MINOR} -X {_VERSION}.gitTreeState=clean"
)

kubernetes = _ours(
    "kubernetes",
    KUBERNETES_PROGRAMS,
    f"{KUBERNETES}, about 5 min on two cores, once",
    flags=_KUBERNETES_FLAGS,
    gib=10,
)
coredns = _ours("coredns", ("coredns",), "about 1 min, once")
pause = _ours("pause", ("pause",), "seconds, once")
etcd = _ours("etcd", ("etcd",), "about 1 min, once")
kstatus = _ours("kstatus", ("kstatus",), "about 1 min, once")
_CONTAINERD_COMMANDS = "github.com/containerd/containerd/v2/cmd"
containerd = _released(
    "containerd",
    {
        program: f"{_CONTAINERD_COMMANDS}/{program}@v{CONTAINERD}"
        for program in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    f"{CONTAINERD}, about 2 min, once",
    flags=f"{STRIPPED} -X github.com/containerd/containerd/v2/version.Version=v{CONTAINERD}",
)
helm = _released(
    "helm",
    {"helm": f"helm.sh/helm/v3/cmd/helm@v{HELM}"},
    f"{HELM}, about 70 s, once",
    flags=f"{STRIPPED} -X helm.sh/helm/v3/internal/version.version=v{HELM}",
)
kind = _released("kind", {"kind": f"sigs.k8s.io/kind@v{KIND}"}, f"{KIND}, seconds, once", flags=STRIPPED)
versitygw = _released(
    "versitygw",
    {"versitygw": f"github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW}"},
    f"{VERSITYGW}, an S3 server, about 3 min, once",
    flags=STRIPPED,
)
prometheus = _released(
    "prometheus",
    {
        program: f"github.com/prometheus/prometheus/cmd/{program}@v{PROMETHEUS}"
        for program in ("prometheus", "promtool")
    },
    f"{PROMETHEUS}, about 6 min, once",
    flags=STRIPPED,
    # Without the clients of every cloud: what is scraped is named in a file.
    tags="remove_all_sd,enable_file_sd",
)
ollama = _released(
    "ollama",
    {"ollama": f"github.com/ollama/ollama@v{OLLAMA}"},
    f"{OLLAMA}, about 5 min, once",
    flags=STRIPPED,
    cgo=True,
)
ollama_reads = _ours(
    "ollama-reads", ("ollama-reads",), "Ollama's own readers of templates and Modelfiles, seconds, once"
)

CONTROL_PLANE = (kubernetes, etcd)
SINGLE_NODE = (*CONTROL_PLANE, containerd, coredns, pause, helm)
OF_CLUSTER = {
    "single-node": SINGLE_NODE,
    "kind": (kubernetes, helm, kind),
    "kubeconfig": (kubernetes, helm),
}
"""What each kind of cluster is made of or asked by, but for a node image."""


def ensure(wanted: tuple[Tool, ...] = SINGLE_NODE) -> None:
    """Build what is missing of *wanted*, and say what was there already."""
    there = [tool.name for tool in wanted if tool.is_built()]
    if there:
        say(f"  {', '.join(there)} (cached)")
    for tool in wanted:
        tool.folder()


def service_monitor_crd() -> Path:
    return monitoring_crd("servicemonitors")


def monitoring_crd(plural: str) -> Path:
    """Path of a CRD's manifest, from the Prometheus Operator's own module."""
    return _of_module(
        f"github.com/prometheus-operator/prometheus-operator@v{PROMETHEUS_OPERATOR}",
        f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml",
    )


def neighbour_crds() -> tuple[Path, ...]:
    """Paths of the manifests of ScaledObject, HTTPRoute and InferencePool, each from its own project's module."""
    return (
        _of_module(f"github.com/kedacore/keda/v2@v{KEDA}", "config/crd/bases/keda.sh_scaledobjects.yaml"),
        _of_module(
            f"sigs.k8s.io/gateway-api@v{GATEWAY_API}",
            "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        ),
        _of_module(
            f"sigs.k8s.io/gateway-api-inference-extension@v{INFERENCE_EXTENSION}",
            "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
        ),
    )


def _of_module(module: str, path: str) -> Path:
    """Path of a file of a Go module, which is downloaded if need be."""
    printed = run([gotoolchain.go(), "mod", "download", "-json", module], env=gotoolchain.environment())
    return Path(json.loads(printed)["Dir"]) / path
