"""The cluster under test with the images and the chart of this checkout on it."""

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster, chart, images, service_monitor_crd
from tests.e2e.site import Site, merged


@pytest.fixture(scope="session")
def site(cluster: Cluster) -> Iterator[Site]:
    """The operator, installed from the chart; uninstalled at the end, CRD included."""
    loaded = {name: cluster.load_image(image.archive, image.name) for name, image in images.ensure().items()}
    values = merged(chart.values(loaded), {"runtime": {"allowedImagePrefixes": ["registry.invalid/"]}})
    site = Site(cluster, values, runtime_image=loaded["slm-runtime"])
    cluster.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    site.install()
    yield site
    site.uninstall()
