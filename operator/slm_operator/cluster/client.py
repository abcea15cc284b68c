"""The official client's asyncio side, with plain JSON in and out.

Typed models cost memory and time and give nothing here: documents are built and read as data, and the API
server checks them. One pool of connections bounds what is in flight.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.api_client import ApiClient

from slm_operator.cluster import errors
from slm_operator.cluster.connection import USER_AGENT, bearer_token
from slm_operator.cluster.protocol import Kept, Listing
from slm_operator.cluster.resources import CONTROLLER_REVISION, Resource, resource_of
from slm_operator.crd.names import FIELD_MANAGER
from slm_operator.ownership import consolidated
from slm_operator.snapshot import Document

PAGE: Final = 100
"""Objects in one answer of a list."""

LIST_ATTEMPTS: Final = 3
"""Of a list whose pages outlive their revision."""

APPLY: Final = "application/apply-patch+yaml; charset=utf-8"
MERGE: Final = "application/merge-patch+json"
PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"
YAML: Final = "application/yaml"
_ESCAPED: Final = re.compile("[<>&\u2028\u2029]")
"""What JSON may hold as it is, and API servers write escaped."""
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON may hold as it is, and YAML takes for the end of a line or not at all."""

Observer = Callable[[str, str, int, float], None]
"""Told of every request: method, plural, status code (0: no answer), seconds."""


class KubernetesClient:
    """Implements :class:`~slm_operator.cluster.protocol.Cluster` over HTTP.

    Parameters
    ----------
    api
        Owned from here on: :meth:`close` closes it.
    timeout
        Seconds for one request, connecting included.
    """

    def __init__(self, api: ApiClient, *, timeout: float = 30.0, observer: Observer | None = None) -> None:
        self._api = api
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._observer = observer

    async def close(self) -> None:
        await self._api.close()

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        keep: Callable[[Document], Kept],
        *,
        field_selector: str = "",
        cached: bool = False,
    ) -> Listing[Kept]:
        """See the protocol; a list that outlives its revision is begun anew."""
        query = {"limit": str(PAGE)}
        if resource.selector:
            query["labelSelector"] = resource.selector
        if field_selector:
            query["fieldSelector"] = field_selector
        if cached:
            query["resourceVersion"] = "0"
        for _ in range(LIST_ATTEMPTS - 1):
            with suppress(errors.ExpiredError):
                return await self._list(resource, namespace, keep, query)
        return await self._list(resource, namespace, keep, query)

    async def _list(
        self,
        resource: Resource,
        namespace: str | None,
        keep: Callable[[Document], Kept],
        query: Mapping[str, str],
    ) -> Listing[Kept]:
        items: list[Kept] = []
        identity = {"apiVersion": resource.api_version, "kind": resource.kind}
        while True:
            page = await self._request("GET", resource, resource.path(namespace), query=query)
            # The items of a list don't say their kind.
            items += [keep({**item, **identity}) for item in page.get("items") or ()]
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return Listing(items, metadata["resourceVersion"])
            # The other pages have the revision of the first.
            following = {key: value for key, value in query.items() if key != "resourceVersion"}
            query = {**following, "continue": metadata["continue"]}

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Document:
        return await self._request("GET", resource, resource.path(namespace, name))

    async def create(self, document: Document) -> Document:
        resource, path, _ = _place(document)
        query = {"fieldManager": FIELD_MANAGER}
        if resource is not CONTROLLER_REVISION:
            return await self._request("POST", resource, path, query=query, body=document)
        body, content_type = _as_kept(document)
        return await self._request("POST", resource, path, query=query, body=body, content_type=content_type)

    async def replace(self, document: Document) -> Document:
        resource, path, name = _place(document)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PUT", resource, f"{path}/{name}", query=query, body=document)

    async def apply(self, document: Document, *, force: bool = True) -> Document:
        resource, path, name = _place(document)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._request(
            "PATCH", resource, f"{path}/{name}", query=query, body=_yaml(document), content_type=APPLY
        )

    async def consolidate(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> Document:
        live = await self.get(resource, namespace, name)
        metadata = live["metadata"]
        if (metadata["uid"], metadata["resourceVersion"]) != (uid, resource_version):
            raise errors.ConflictError(f"{resource.kind} {name!r} has changed since it was last seen")
        managed = consolidated(metadata.get("managedFields") or ())
        if managed is None:
            return live
        # Not tests: an identity that can't be set is answered as every other conflict, a failed test as an error.
        patch: list[dict[str, Any]] = [
            {"op": "replace", "path": "/metadata/uid", "value": uid},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "replace", "path": "/metadata/managedFields", "value": managed},
        ]
        path, query = resource.path(namespace, name), {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", resource, path, query=query, body=patch, content_type=PATCH)

    async def overwrite(self, document: Document) -> Document:
        resource, path, name = _place(document)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request(
            "PATCH", resource, f"{path}/{name}", query=query, body=document, content_type=MERGE
        )

    async def apply_status(self, document: Document) -> Document:
        resource, path, name = _place(document)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request(
            "PATCH", resource, f"{path}/{name}/status", query=query, body=_yaml(document), content_type=APPLY
        )

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        await self._request("DELETE", resource, resource.path(namespace, name), body=options)

    async def serves(self, resource: Resource) -> bool:
        try:
            served = await self._request("GET", resource, resource.root)
        except errors.MissingError:
            return False
        return any(entry.get("name") == resource.plural for entry in served.get("resources") or ())

    async def _request(
        self,
        method: str,
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        """What is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        configuration = self._api.configuration
        url = configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": USER_AGENT}
        start = perf_counter()
        code = 0
        try:
            if token := await bearer_token(configuration):
                headers["Authorization"] = token
            response = await self._api.call_api(
                method, url, header_params=headers, body=data, _request_timeout=self._timeout
            )
            code = response.status
            payload = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.UnavailableError(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            if self._observer is not None:
                self._observer(method, resource.plural, code, perf_counter() - start)
        if code >= 300:
            status = _document(payload) or {}
            raise errors.from_status(code, status, _seconds(response.getheader("Retry-After")))
        document = _document(payload)
        if document is None:
            raise errors.UnavailableError(f"{method} {path}: {code}, and the body isn't a JSON object")
        return document


def _place(document: Document) -> tuple[Resource, str, str]:
    """Resource, path of the collection, and name of a document."""
    resource = resource_of(document)
    metadata = document["metadata"]
    return resource, resource.path(metadata.get("namespace")), metadata["name"]


def _yaml(document: Document) -> bytes:
    """JSON that is YAML as well."""
    text = orjson.dumps(document).decode()
    return _UNPRINTABLE.sub(_escape, text).encode()


def _as_kept(document: Document) -> tuple[bytes, str]:
    """The body of a ControllerRevision, and its type: its data as the API server itself would write them.

    They are compared byte by byte with what comes back, and would else differ from themselves at every later write. Of YAML
    it makes JSON of its own, which takes it milliseconds more: only where that can't be foretold for every version.
    """
    text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
    if _has_float(document) or "\\b" in text or "\\f" in text:
        return _yaml(document), YAML
    return _ESCAPED.sub(_escape, text).encode(), JSON


def _has_float(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_float, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_float, value))
    return isinstance(value, float)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _document(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; None for anything else, such as a proxy's page of HTML."""
    try:
        parsed = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _seconds(header: str | None) -> float:
    """Retry-After as seconds; its other form, a date, is left to our own backoff."""
    try:
        return float(header or 0)
    except ValueError:
        return 0.0
