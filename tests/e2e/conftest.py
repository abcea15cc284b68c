"""The cluster under test with the images and the chart of this checkout on it."""

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster, host_index, images, service_monitor_crd
from tests.e2e.site import Site, image_values


@pytest.fixture(scope="session")
def site(cluster: Cluster) -> Iterator[Site]:
    """The operator, installed from the chart; uninstalled at the end, CRD included."""
    loaded = {name: cluster.load_image(image.archive, image.name) for name, image in images.ensure().items()}
    index = host_index()
    fetch = {"env": index.env, "caBundle": index.ca_bundle.read_text() if index.ca_bundle else ""}
    values = {
        "image": image_values(loaded["slm-operator"]),
        "runtime": {
            "image": image_values(loaded["slm-runtime"]),
            "allowedImagePrefixes": ["registry.invalid/"],
        },
        "fetch": fetch,
    }
    site = Site(cluster, values, runtime_image=loaded["slm-runtime"])
    cluster.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    site.install()
    yield site
    site.uninstall()
