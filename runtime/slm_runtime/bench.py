"""`slm-runtime bench`: how fast a running server answers several clients at once, as they would see it."""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2
import msgspec

from slm_contract.places import API_PORT

_WORDS = "river stone lantern winter market copper garden signal harbour paper"


@dataclass(frozen=True)
class Stream:
    """Seconds since the request was sent, at each piece of text."""

    arrivals: list[float]
    tokens: int


@dataclass(frozen=True)
class Measured:
    streams: int
    tokens_per_second: float
    """Of all streams together."""
    first_token: float
    """Seconds, median."""
    gap: float
    """Seconds between pieces, 99th percentile."""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except httpx2.HTTPStatusError as error:
        print(f"{options.url} answered {error.response.status_code}: {error}", file=sys.stderr)
    except httpx2.TransportError as error:
        print(f"Can't reach {options.url}: {error}. Is the server running?", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slm-runtime bench", description=__doc__)
    parser.add_argument("--url", default=f"http://127.0.0.1:{API_PORT}", help="of the server")
    parser.add_argument("--key", default=os.environ.get("SLM_API_KEY", ""), help="default: $SLM_API_KEY")
    parser.add_argument("--streams", default="1,4,8", help="how many clients at once, each in turn")
    parser.add_argument("--tokens", type=int, default=96, help="that each client asks for")
    parser.add_argument("--prompt-words", type=int, default=40)
    return parser


async def _run(options: argparse.Namespace) -> int:
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    async with httpx2.AsyncClient(base_url=options.url, headers=headers, timeout=600) as client:
        listed = await client.get("/v1/models")
        listed.raise_for_status()
        model: str = listed.json()["data"][0]["id"]
        print(
            f"{model}, {options.tokens} tokens a client\n{'streams':>8}{'tok/s':>9}{'first':>10}{'gap p99':>10}"
        )
        for count in (int(word) for word in options.streams.split(",")):
            measured = await measure(client, model, count, options.tokens, options.prompt_words)
            print(
                f"{measured.streams:8}{measured.tokens_per_second:9.1f}"
                f"{measured.first_token * 1000:7.0f} ms{measured.gap * 1000:7.0f} ms"
            )
    return 0


async def measure(
    client: httpx2.AsyncClient, model: str, streams: int, tokens: int, prompt_words: int
) -> Measured:
    """Let `streams` clients with prompts of their own ask at once.

    Raises
    ------
    httpx2.HTTPError
    """
    began = time.monotonic()
    done = await asyncio.gather(
        *(
            _ask(client, model, _prompt(streams * 1000 + number, prompt_words), tokens)
            for number in range(streams)
        )
    )
    seconds = time.monotonic() - began
    gaps = [late - early for one in done for early, late in zip(one.arrivals, one.arrivals[1:], strict=False)]
    return Measured(
        streams=streams,
        tokens_per_second=sum(one.tokens for one in done) / seconds,
        first_token=statistics.median(one.arrivals[0] if one.arrivals else seconds for one in done),
        gap=sorted(gaps)[int(len(gaps) * 0.99)] if gaps else 0.0,
    )


async def _ask(client: httpx2.AsyncClient, model: str, prompt: str, tokens: int) -> Stream:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.monotonic()
    arrivals: list[float] = []
    made = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.is_error:
            await answer.aread()
            answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = msgspec.json.decode(line[len("data: ") :])
            if any(choice["delta"].get("content") for choice in chunk.get("choices", [])):
                arrivals.append(time.monotonic() - began)
            if chunk.get("usage"):
                made = chunk["usage"]["completion_tokens"]
    return Stream(arrivals, made)


def _prompt(number: int, words: int) -> str:
    """No two clients share a prefix, nor two rounds."""
    vocabulary = _WORDS.split()
    chosen = [vocabulary[(number + i * (number + 3)) % len(vocabulary)] for i in range(words)]
    return f"{number}: write a story with these words: {' '.join(chosen)}"
