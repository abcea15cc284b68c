"""Renders the chart with the real Helm, as a user of it would."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chart.generate import CHART
from tests.chart.rendering import MODES, NAMESPACE, ChartRefused, Helm, Render, Rendered
from tests.cluster import chart, tools


@pytest.fixture(scope="session")
def helm() -> Helm:
    program = tools.helm.path()

    def run(*arguments: str | Path) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChartRefused(done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Render:
    folder = tmp_path_factory.mktemp("values")

    def template(values: Mapping[str, Any] | None = None, /, *flags: str | Path) -> Rendered:
        file = chart.write(values or {}, folder / "values.yaml")
        place = ("--namespace", NAMESPACE, "--kube-version", tools.KUBERNETES)
        return Rendered(helm("template", "slm-operator", CHART, *place, "--values", file, *flags))

    return template


@pytest.fixture(scope="session", params=list(MODES))
def rendered(request: pytest.FixtureRequest, render: Render) -> Rendered:
    """The chart in each of its modes."""
    return render(MODES[request.param])
