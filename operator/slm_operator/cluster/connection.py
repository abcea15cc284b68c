"""Where the API server is and who we are, for our client and for Kopf's."""

import os
from typing import Any

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

USER_AGENT = "slm-operator"
"""Names the operator's requests in the API server's audit log."""


class NotConnectedError(Exception):
    """Nothing here says where the API server is."""


async def load(kubeconfig: str | None = None) -> Configuration:
    """The pod's service account, else the kubeconfig: the given one, ``KUBECONFIG``, or its default place.

    Raises
    ------
    NotConnectedError
        Neither is there, or the kubeconfig can't be read.
    """
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        try:
            await load_kube_config(
                config_file=kubeconfig or os.environ.get("KUBECONFIG"),
                client_configuration=configuration,
                persist_config=False,
            )
        except (ConfigException, OSError) as error:
            raise NotConnectedError(
                f"no API server: not in a pod with a service account, and no usable kubeconfig ({error}); "
                "set KUBECONFIG"
            ) from error
    return configuration


def api_client(configuration: Configuration, connections: int) -> ApiClient:
    """A client with a pool of its own: at most ``connections`` requests at once."""
    configuration.connection_pool_maxsize = connections
    return ApiClient(configuration)


async def bearer_token(configuration: Any) -> str | None:
    """The Authorization header, read anew where the token file is rotated; None with client certificates."""
    token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return str(token) if token else None
