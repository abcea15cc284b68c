"""Where the API server is and who we are, for our client and for Kopf's."""

import os
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from typing_extensions import override

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
    client = ApiClient(configuration)
    client.rest_client = _AsGiven(configuration)
    return client


class _AsGiven(RESTClientObject):  # type: ignore[misc]
    """Sends bodies as they are given: the client library writes JSON anew, in which other bytes mean the same."""

    pool_manager: aiohttp.ClientSession | None

    @override
    async def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        post_params: object = None,
        _request_timeout: aiohttp.ClientTimeout | None = None,
    ) -> RESTResponse:
        pool = self.pool_manager = self.pool_manager or self._create_pool_manager()
        way = {
            "proxy": self.proxy,
            "proxy_headers": self.proxy_headers,
            "server_hostname": self.configuration.tls_server_name,
        }
        response = await pool.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=_request_timeout,
            **{name: given for name, given in way.items() if given},
        )
        return RESTResponse(response)


async def bearer_token(configuration: Any) -> str | None:
    """The Authorization header, read anew where the token file is rotated; None with client certificates."""
    token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return str(token) if token else None
