"""Asks the rendering process, and replaces it when it hangs or dies."""

import asyncio
import contextlib
import sys
from typing import Any, Final, Literal, cast

import msgspec

from slm_runtime.templates.worker import LENGTH

RENDER_SECONDS: Final = 3.0
"""A real template takes a millisecond, a long conversation perhaps ten."""
START_SECONDS: Final = 30.0

Kind = Literal["syntax", "refused", "render", "size", "time"]


class TemplateFailed(Exception):
    """A template gave no prompt; `kind` says whose fault that was.

    `syntax` is the template's, `refused` and `render` may be the messages' (the sentence tells), `size`
    and `time` are bounds that were hit.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message


class TemplateRenderer:
    """One rendering at a time: they are short, and there is one template."""

    def __init__(self, render_seconds: float = RENDER_SECONDS) -> None:
        self._render_seconds = render_seconds
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._exchange: asyncio.Task[dict[str, str] | None] | None = None

    async def start(self) -> None:
        """Have the process there before it is asked for something."""
        with contextlib.suppress(TemplateFailed):
            await self.render("", {})

    async def render(self, template: str, variables: dict[str, Any]) -> str:
        """Render a template's source with its variables.

        Raises
        ------
        TemplateFailed
        """
        request = msgspec.json.encode({"template": template, "variables": variables})
        await self._turn.acquire()
        # Read to its end even if nobody waits for it any more: the next question would get this answer. And a
        # cancelled start of a process may never end (CPython's issue 119710).
        self._exchange = asyncio.create_task(self._take_turn(request))
        answer = await asyncio.shield(self._exchange)
        if answer is None:
            raise TemplateFailed("size", "it ended the process that renders it")
        if "error" in answer:
            raise TemplateFailed(cast("Kind", answer["kind"]), answer["error"])
        return answer["text"]

    async def close(self) -> None:
        async with self._turn:
            await self._end()

    async def _take_turn(self, request: bytes) -> dict[str, str] | None:
        try:
            # The kernel may have ended the process for memory that others took: once more, then.
            return await self._answer(request) or await self._answer(request)
        except TimeoutError:
            await self._end()
            raise TemplateFailed("time", f"it took longer than {self._render_seconds:g} s") from None
        finally:
            self._turn.release()

    async def _answer(self, request: bytes) -> dict[str, str] | None:
        """None: the process ended instead."""
        try:
            process = await self._running()
            async with asyncio.timeout(self._render_seconds):
                return msgspec.json.decode(await _ask(process, request), type=dict[str, str])
        except (EOFError, ConnectionError):
            await self._end()
            return None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        # Releases the pipes now rather than when the garbage collector comes by.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "slm_runtime.templates.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        # Its start takes longer than a rendering may, so it is waited for by a rendering of nothing.
        async with asyncio.timeout(START_SECONDS):
            await _ask(self._process, msgspec.json.encode({"template": "", "variables": {}}))
        return self._process


async def _ask(process: asyncio.subprocess.Process, request: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(LENGTH.pack(len(request)) + request)
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)
