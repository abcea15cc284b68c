"""The load: chat completions streamed by many clients at once, every arrival of text with its time.

The client shares the machine with the server it measures, so it does as little as it can for each chunk: it notes the
time and looks no further; what was generated is counted by the server's own usage record at the end of the stream.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson


@dataclass
class Trace:
    """One streamed answer; times are `time.perf_counter()` in seconds."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 0
    text: str = ""

    @property
    def first_token_seconds(self) -> float:
        return self.arrivals[0] - self.sent

    @property
    def ended(self) -> float:
        return self.arrivals[-1]

    def longest_gap(self, begin: float, end: float) -> float:
        """Longest wait between two arrivals in a window, the window's own borders included."""
        inside = [begin, *(moment for moment in self.arrivals if begin < moment < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(inside))


async def stream(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Trace:
    """Send one streamed chat completion and read it to its end."""
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    trace = Trace(time.perf_counter())
    last = b""
    async with session.post(
        f"{url}/v1/chat/completions", data=orjson.dumps(request), headers={"Content-Type": "application/json"}
    ) as response:
        trace.status = response.status
        if response.status != 200:
            trace.text = (await response.read()).decode(errors="replace")[:300]
            return trace
        async for line in response.content:
            if line.startswith(b"data: {"):
                last = line
                # Text is what counts: the first event of a stream carries only a role, the last only usage.
                if b'"content":"' in line and b'"content":""' not in line:
                    trace.arrivals.append(time.perf_counter())
    usage = orjson.loads(last[6:])["usage"]
    trace.prompt_tokens = usage["prompt_tokens"]
    trace.completion_tokens = usage["completion_tokens"]
    return trace


async def together(url: str, bodies: Sequence[dict[str, Any]]) -> list[Trace]:
    """Send all at once, a connection each, and wait for the last."""
    async with client(len(bodies)) as session:
        traces = await asyncio.gather(*(stream(session, url, body) for body in bodies))
    refused = next((trace for trace in traces if trace.status != 200), None)
    if refused:
        raise SystemExit(f"{url} answered {refused.status}: {refused.text}")
    return traces


def client(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections), timeout=aiohttp.ClientTimeout(total=1800)
    )


def tokens_per_second(traces: Sequence[Trace]) -> float:
    """Of all streams together, from the first send to the last arrival, prompts included."""
    begin = min(trace.sent for trace in traces)
    end = max(trace.ended for trace in traces)
    return sum(trace.completion_tokens for trace in traces) / (end - begin)


def decode_tokens_per_second(trace: Trace) -> float:
    """Of one stream, from its first token on."""
    return (trace.completion_tokens - 1) / (trace.ended - trace.arrivals[0])


def median_first_token(traces: Sequence[Trace]) -> float:
    return statistics.median(trace.first_token_seconds for trace in traces)
