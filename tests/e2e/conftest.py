"""The clusters under test with the images and the chart of this checkout on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import Cluster, chart, images, service_monitor_crd
from tests.cluster.kind import KindCluster
from tests.e2e.site import Site, merged


@pytest.fixture(scope="session")
def site(cluster: Cluster) -> Iterator[Site]:
    """The operator, installed from the chart; uninstalled at the end, CRD included."""
    with _installed(cluster) as site:
        yield site


@pytest.fixture(scope="session")
def wide_site(workers: KindCluster) -> Iterator[Site]:
    """The same on a cluster whose pods run on either of two nodes."""
    with _installed(workers) as site:
        yield site


@contextmanager
def _installed(cluster: Cluster) -> Iterator[Site]:
    loaded = {name: cluster.load_image(image.archive, image.name) for name, image in images.ensure().items()}
    values = merged(chart.values(loaded), {"runtime": {"allowedImagePrefixes": ["registry.invalid/"]}})
    site = Site(cluster, values, runtime_image=loaded["slm-runtime"])
    cluster.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    site.install()
    yield site
    site.uninstall()
