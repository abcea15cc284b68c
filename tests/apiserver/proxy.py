"""A reverse proxy between one operator process and the API server, which breaks what it is told to break.

All that the operator sends goes through it, Kopf's lists and watches included. It numbers the operator's writes
(those of the Lease apart, which is renewed in any case), so that a test can say what becomes of the n-th: see
:class:`Fault`. It runs in a thread with an event loop of its own; its methods may be called from any thread.
"""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from slm_operator.cluster import connection

LINE = 2**21
"""Bytes of the longest event of a watch."""
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
APART = frozenset({"leases", "events"})
"""What is written when time has come, whatever else is: no fault of theirs would be the same one twice."""
_PATH = re.compile(
    r"/(?:api|apis/[^/]+)/[^/]+(?:/namespaces/[^/]+)?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>[^/]+))?"
)
_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}
)
_REASONS = {
    409: ("Conflict", "the object has been modified; please apply your changes to the latest version"),
    410: ("Expired", "too old resource version"),
    429: ("TooManyRequests", "too many requests, please try again later"),
    500: ("InternalError", "etcdserver: request timed out"),
    504: ("Timeout", "the request did not complete within the allotted time"),
}

Hook = Callable[["Proxy"], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """What becomes of a write."""

    name: str
    happens: bool = True
    """The API server gets it."""
    heard: bool = True
    """The operator gets an answer; else the connection breaks."""
    answer: int | None = None
    """This status code is answered, whatever the API server said."""
    first: Hook | None = None
    then: Hook | None = None
    """What else goes wrong, before and after the API server gets it."""
    loses: bool = False
    """Events are lost, which only the next list can tell of."""


async def kill(proxy: "Proxy") -> None:
    proxy.kill()


async def record_lists(proxy: "Proxy") -> None:
    await proxy.record()


KILL_BEFORE = Fault("kill-before", happens=False, heard=False, first=kill)
KILL_AFTER = Fault("kill-after", heard=False, then=kill)
STALE_START = Fault("stale-start", heard=False, first=record_lists, then=kill)
"""Killed, and what the next process lists is as it was before this write."""
DROPPED = Fault("dropped", heard=False)


def refused(code: int) -> Fault:
    return Fault(str(code), happens=False, answer=code)


def broken_watches(error: int | None = None, *, cut: bool = False) -> Fault:
    """All watches end after the write: see :meth:`Proxy.end_watches`."""

    async def end(proxy: "Proxy") -> None:
        proxy.end_watches(error=error, cut=cut)

    return Fault(f"watches-{error or ('cut' if cut else 'ended')}", then=end)


def held_watches(seconds: float) -> Fault:
    async def hold(proxy: "Proxy") -> None:
        proxy.hold_watches(seconds)

    return Fault("watches-held", first=hold)


def lost_event(plural: str, number: int = 1) -> Fault:
    """Of the events of a kind that follow the write, the operator doesn't get this one."""

    async def swallow(proxy: "Proxy") -> None:
        proxy.swallow(plural, number)

    return Fault(f"lost-event-of-{plural}", first=swallow, loses=True)


@dataclass
class Write:
    number: int
    what: str
    code: int = 0
    """What the API server answered; 0 where it wasn't asked."""
    fault: str = ""


@dataclass(eq=False)
class _Stream:
    plural: str
    end: "asyncio.Future[bytes | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """The last bytes; None where the connection is cut."""


class Proxy:
    """A context manager; the operator that is given :attr:`kubeconfig` goes through it.

    Attributes
    ----------
    writes
        All that the operator has asked for, in order.
    lists
        How often it has listed, by plural.
    kill
        Called where a fault kills the operator: the test says how.
    """

    def __init__(self, upstream: Path, folder: Path) -> None:
        self._upstream = upstream
        self.kubeconfig = folder / "proxy.kubeconfig"
        self.writes: list[Write] = []
        self.lists: Counter[str] = Counter()
        self.kill: Callable[[], None] = lambda: None
        self._rules: list[tuple[Callable[[int], bool], Fault]] = []
        self._streams: set[_Stream] = set()
        self._held: dict[str | None, float] = {}
        self._swallow: dict[str, int] = {}
        self._listed: dict[tuple[str, str], str] = {}
        self._stale: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30), "the proxy doesn't start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def at(self, number: int, fault: Fault) -> None:
        """The write of this number, counted from 0, meets the fault."""
        self._rules.append((lambda asked: asked == number, fault))

    def every(self, nth: int, fault: Fault) -> None:
        """Every nth write meets the fault."""
        self._rules.append((lambda asked: asked % nth == nth - 1, fault))

    def clear(self) -> None:
        """From here on nothing goes wrong."""
        self._rules.clear()
        self._stale.clear()

    @property
    def met(self) -> list[Write]:
        """The writes that met a fault."""
        return [write for write in self.writes if write.fault]

    def end_watches(self, plural: str | None = None, *, error: int | None = None, cut: bool = False) -> None:
        """End the open watches, of one kind or all.

        Parameters
        ----------
        error
            Say so in the stream before, as the API server does: 410 where the revision is compacted.
        cut
            Break the connection in the middle, rather than end the answer.
        """
        event = {"type": "ERROR", "object": _status(error)} if error else None
        last = None if cut else json.dumps(event).encode() + b"\n" if event else b""

        def end() -> None:
            for stream in self._streams:
                if plural in {None, stream.plural} and not stream.end.done():
                    stream.end.set_result(last)

        self._loop.call_soon_threadsafe(end)

    def hold_watches(self, seconds: float, plural: str | None = None) -> None:
        """Pass no event on for a while."""
        self._held[plural] = self._loop.time() + seconds

    def swallow(self, plural: str, number: int = 1) -> None:
        """Lose one event: of those that come from now on the one of this number, counted from 1."""
        self._swallow[plural] = number

    async def record(self, times: int = 2) -> None:
        """Remember all lists as they are now, and answer each so the next times that it is asked for.

        Twice: our own list and Kopf's, which then watches from that revision.
        """
        for key, path in self._listed.items():
            query = {"labelSelector": key[1]} if key[1] else {}
            async with self._session.get(path, params=query) as answer:
                self._stale[key] = (await answer.read(), times)

    def record_lists(self, times: int = 2) -> None:
        """The same, for the test's own thread."""
        asyncio.run_coroutine_threadsafe(self.record(times), self._loop).result(30)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        configuration = await connection.load(str(self._upstream))
        client = connection.api_client(configuration, 1)
        tls = client.rest_client.ssl_context
        await client.close()
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        async with aiohttp.ClientSession(
            configuration.host, connector=connector, read_bufsize=LINE, auto_decompress=False
        ) as self._session:
            app = web.Application(client_max_size=LINE)
            app.router.add_route("*", "/{path:.*}", self._take)
            # A killed operator's watches end with it.
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.kubeconfig.write_text(json.dumps(_kubeconfig(runner.addresses[0][1])))
            self._ready.set()
            await self._stop.wait()
            self.end_watches()
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        match = _PATH.fullmatch(request.path)
        plural = match["plural"] if match else ""
        if request.method in WRITES and plural not in APART:
            write = Write(len(self.writes), f"{request.method} {request.path}")
            self.writes.append(write)
            for meets, fault in self._rules:
                if meets(write.number):
                    write.fault = fault.name
                    return await self._break(request, write, fault)
            return await self._forward(request, write)
        if request.query.get("watch") in {"true", "1"}:
            return await self._watch(request, plural)
        if match and not match["name"] and request.method == "GET":
            return await self._list(request, plural)
        return await self._forward(request)

    async def _break(self, request: web.Request, write: Write, fault: Fault) -> web.StreamResponse:
        if fault.first is not None:
            await fault.first(self)
        answer: web.StreamResponse = await self._forward(request, write) if fault.happens else web.Response()
        if fault.then is not None:
            await fault.then(self)
        if not fault.heard:
            return _cut(request)
        return answer if fault.answer is None else _refusal(fault.answer)

    def _ask(self, request: web.Request, body: bytes) -> Any:
        """As the operator asked: a content type that it didn't name would be refused."""
        return self._session.request(
            request.method,
            request.rel_url,
            headers=_kept(request.headers),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            data=body or None,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def _forward(self, request: web.Request, write: Write | None = None) -> web.Response:
        async with self._ask(request, await request.read()) as answer:
            if write is not None:
                write.code = answer.status
            body = await answer.read()
            return web.Response(status=answer.status, body=body, headers=_kept(answer.headers))

    async def _list(self, request: web.Request, plural: str) -> web.Response:
        key = (request.path, request.query.get("labelSelector", ""))
        if "continue" not in request.query:
            self.lists[plural] += 1
            self._listed[key] = request.path
        body, left = self._stale.get(key, (b"", 0))
        if left:
            self._stale[key] = (body, left - 1)
            return web.Response(body=body, content_type="application/json")
        return await self._forward(request)

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        """Pass each event on as soon as it is there."""
        async with self._ask(request, b"") as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
            await response.prepare(request)
            stream = _Stream(plural)
            self._streams.add(stream)
            pump = asyncio.create_task(self._pump(plural, answer.content, response))
            try:
                await asyncio.wait({pump, stream.end}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._streams.discard(stream)
                pump.cancel()
                with suppress(asyncio.CancelledError, ConnectionError, aiohttp.ClientError):
                    await pump
            if stream.end.done():
                if (last := stream.end.result()) is None:
                    return _cut(request)
                await response.write(last)
            return response

    async def _pump(self, plural: str, source: aiohttp.StreamReader, response: web.StreamResponse) -> None:
        async for line in source:
            held = max(self._held.get(each, 0.0) for each in (plural, None))
            await asyncio.sleep(max(0.0, held - self._loop.time()))
            if not self._is_lost(plural, line):
                await response.write(line)

    def _is_lost(self, plural: str, line: bytes) -> bool:
        if plural not in self._swallow or b'"type":"BOOKMARK"' in line:
            return False
        self._swallow[plural] -= 1
        if self._swallow[plural]:
            return False
        del self._swallow[plural]
        return True


def _cut(request: web.Request) -> web.Response:
    """The connection is gone; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _status(code: int) -> dict[str, Any]:
    reason, message = _REASONS[code]
    details = {"retryAfterSeconds": 1} if code == 429 else {}
    identity = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**identity, "message": message, "reason": reason, "details": details, "code": code}


def _refusal(code: int) -> web.Response:
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(_status(code), status=code, headers=headers)


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]


def _kubeconfig(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "current-context": "proxy",
    }
