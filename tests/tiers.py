"""Run the tiers of tests that this machine can run, in order of cost; name those it can't, with the reason.

``python -m tests.tiers`` runs all of them but those by hand, ``python -m tests.tiers fast`` or ``... chart e2e`` the named
ones. A tier that fails doesn't keep the next from running: one look shows everything that is broken.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Tier:
    name: str
    real: str
    """What is real in it."""
    folders: tuple[str, ...]
    obstacle: Callable[[], str | None] = lambda: None
    """Why it can't run here; None where it can."""
    options: tuple[str, ...] = ()
    by_hand: bool = False
    """Whether it runs only where it is named."""


def no_linux() -> str | None:
    return None if sys.platform == "linux" else "the API server and etcd are built for Linux only"


def no_cluster() -> str | None:
    from tests.cluster import NoCluster, select

    try:
        select()
    except NoCluster as error:
        return str(error)
    return None


BUILDS = ("--timeout=2400",)
"""The first test waits until Helm, Kubernetes' components or the images are built, where no cache has them."""

TIERS = (
    Tier(
        "fast",
        "pure functions, the contract, an in-memory cluster",
        ("unit", "contract", "sim"),
        options=("-n", "logical"),
    ),
    Tier("chart", "helm", ("chart",), options=BUILDS),
    Tier("runtime", "the engines, real small models, the vendors' clients", ("runtime",)),
    Tier("apiserver", "the operator process, kube-apiserver, etcd", ("apiserver",), no_linux, BUILDS),
    Tier("e2e", "a whole cluster: kubelet, containers, images, chart, tokens", ("e2e",), no_cluster, BUILDS),
    Tier(
        "sources",
        "the servers that models come from: a registry, Ollama, an S3 gateway, a web server",
        ("sources",),
        options=BUILDS,
        by_hand=True,
    ),
    Tier(
        "ecosystem",
        "what watches models: Prometheus, its rules, its queries",
        ("ecosystem",),
        options=BUILDS,
        by_hand=True,
    ),
    Tier(
        "changes",
        "the same, under load: an upgrade from an earlier version, rollbacks that take their time",
        ("e2e",),
        no_cluster,
        ("-m", "by_hand"),
        by_hand=True,
    ),
    Tier(
        "gpu",
        "the engine on an accelerator that the library finds here",
        ("runtime",),
        options=("-m", "gpu"),
        by_hand=True,
    ),
)


def run(tier: Tier) -> tuple[str, bool]:
    """Run one tier; answer its line in the summary and whether the whole is still green."""
    folders = [f"tests/{folder}" for folder in tier.folders if (ROOT / "tests" / folder).is_dir()]
    if reason := tier.obstacle():
        return f"not run: {reason}", True
    print(f"\n== {tier.name}: {tier.real}", flush=True)
    started = time.monotonic()
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "--durations=5", *tier.options, *folders],
        cwd=ROOT,
        check=False,
    ).returncode
    seconds = time.monotonic() - started
    return f"{'passed' if code == 0 else 'FAILED'} in {seconds:.0f} s", code == 0


def main(names: Sequence[str]) -> int:
    unknown = set(names) - {tier.name for tier in TIERS}
    if unknown:
        known = ", ".join(tier.name for tier in TIERS)
        print(f"No tier is called {', '.join(sorted(unknown))}; there are: {known}", file=sys.stderr)
        return 2
    results = [(tier, *run(tier)) for tier in TIERS if tier.name in names or not (names or tier.by_hand)]
    print("\nTiers:")
    for tier, line, _ in results:
        print(f"  {tier.name:10} {line}")
    return 0 if all(green for _, _, green in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
