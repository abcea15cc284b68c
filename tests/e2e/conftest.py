"""The cluster under test with the images and the chart of this checkout on it."""

from collections.abc import Iterator

import pytest
import yaml

from tests.cluster import Cluster, ensure_images, host_index, tools
from tests.e2e.site import Site


@pytest.fixture(scope="session")
def site(cluster: Cluster) -> Iterator[Site]:
    """The operator, installed from the chart; uninstalled at the end, CRD included."""
    images = ensure_images()
    for image in images.values():
        cluster.load_image(image.archive, image.name)
    index = host_index()
    fetch = {"env": index.env, "caBundle": index.ca_bundle.read_text() if index.ca_bundle else ""}
    values = {
        "image": images["slm-operator"].values,
        "runtime": {
            "image": images["slm-runtime"].values,
            "allowedImagePrefixes": ["registry.invalid/"],
        },
        "fetch": fetch,
    }
    site = Site(cluster, yaml.safe_load(yaml.safe_dump(values)))
    cluster.kubectl("apply", "--server-side", "-f", str(tools.service_monitor_crd()))
    site.install()
    yield site
    site.uninstall()
