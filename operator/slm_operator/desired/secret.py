"""The generated API key. Made by POST, once: random content can't be applied twice, and a key is never overwritten."""

from typing import Any

from slm_contract.config import AuthMode
from slm_operator.crd.names import API_KEY_FILE, key_owner_entry, key_secret_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child


def key_secret(resource: SLMDeployment, key: str) -> dict[str, Any] | None:
    """None where the keys are the user's own, or none are asked for."""
    auth = resource.spec.auth
    if auth.mode is AuthMode.NONE or auth.secret_ref is not None:
        return None
    return {
        **child(resource, "v1", "Secret", key_secret_name(resource.name)),
        "type": "Opaque",
        "stringData": {API_KEY_FILE: key, key_owner_entry(resource.metadata.uid): ""},
    }
