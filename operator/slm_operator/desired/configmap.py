"""The site's CAs beside the pods that fetch: a ConfigMap can't be mounted across namespaces."""

from typing import Any

from slm_contract import places
from slm_operator.crd.names import ca_bundle_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.settings import Settings


def ca_bundle(resource: SLMDeployment, settings: Settings) -> dict[str, Any] | None:
    """None where the site has none, or the spec names its own."""
    if settings.fetch.ca_bundle is None or resource.spec.model.ca_bundle is not None:
        return None
    return {
        **child(resource, "v1", "ConfigMap", ca_bundle_name(resource.name)),
        "data": {places.CA_BUNDLE.rpartition("/")[2]: settings.fetch.ca_bundle},
    }
