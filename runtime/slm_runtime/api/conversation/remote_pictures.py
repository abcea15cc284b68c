"""Images that clients name by URL: fetched from the origins that the configuration names, and from nowhere else."""

import asyncio
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import urljoin

import httpx2

from slm_runtime.api.conversation.pictures import Sent
from slm_runtime.api.http.exchange import BODY_BYTES
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.errors import RuntimeFailure
from slm_runtime.models.sources.address import Origin, check_public, origin, redacted

MAX_REDIRECTS: Final = 3
SECONDS: Final = 10.0
"""For one image, all redirects included."""
AT_ONCE: Final = 8


class RemotePictures:
    """What may be fetched, and the connections to it."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins: frozenset[Origin] = frozenset(map(origin, origins))
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def bring(self, images: Iterable[Sent]) -> None:
        """Fetch those of the images that are named by a URL.

        Raises
        ------
        BadRequest
            One can't be had; the others are given up.
        """
        named = [image for image in images if image.url is not None]
        if not named:
            return
        # Connections aren't kept: images of one origin are rare, and name servers are asked anew.
        async with httpx2.AsyncClient(headers={"User-Agent": "slm-runtime"}, timeout=SECONDS) as client:
            fetches = [asyncio.create_task(self._bring(client, image)) for image in named]
            try:
                await asyncio.gather(*fetches)
            finally:
                for each in fetches:
                    each.cancel()
                await asyncio.gather(*fetches, return_exceptions=True)

    async def _bring(self, client: httpx2.AsyncClient, image: Sent) -> None:
        try:
            async with self._slots, asyncio.timeout(SECONDS):
                image.brought(await self._fetched(client, image.url or ""))
        except TimeoutError:
            raise _not_had(image, f"it did not come within {SECONDS:.0f} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _not_had(image, str(error) or type(error).__name__) from None
        except (_Refused, RuntimeFailure) as error:
            raise _not_had(image, str(error)) from None

    async def _fetched(self, client: httpx2.AsyncClient, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            asked = origin(url)
            if asked not in self._origins:
                allowed = ", ".join(
                    sorted(f"{each.scheme}://{each.host}:{each.port}" for each in self._origins)
                )
                raise _Refused(
                    f"{asked.scheme}://{asked.host}:{asked.port} is none of the origins that images may come from "
                    f"(spec.endpoint.imageOrigins: {allowed})"
                )
            check_public(asked.host)
            async with client.stream("GET", url) as response:
                stream = response.extensions.get("network_stream")
                if stream is not None and (peer := stream.get_extra_info("server_addr")) is not None:
                    check_public(peer[0])
                location = response.headers.get("Location") if response.is_redirect else None
                if location is None:
                    return await _body(response)
            url = urljoin(url, location)
        raise _Refused(f"it redirects more than {MAX_REDIRECTS} times")


class _Refused(Exception):
    """Why, as a part of a sentence."""


async def _body(response: httpx2.Response) -> bytes:
    if response.status_code != HTTPStatus.OK:
        raise _Refused(f"{redacted(str(response.url))} answers {response.status_code}")
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > BODY_BYTES:
            raise _Refused(f"it is larger than {BODY_BYTES >> 20} MiB")
    return bytes(body)


def _not_had(image: Sent, why: str) -> BadRequest:
    return BadRequest(
        f"The image at '{image.name}' can't be fetched: {why.rstrip('.')}. Send it as a data URI.",
        param=image.name,
        code="invalid_image_url",
    )
