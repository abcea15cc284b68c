"""Ollama itself on loopback: it makes models of Modelfiles, and pushes them."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.cluster import tools
from tests.cluster.commands import run
from tests.support.ports import free_port

_START_SECONDS = 60


@contextmanager
def ollama(folder: Path) -> Iterator[Callable[..., str]]:
    """Run Ollama's server in a folder, and answer its client: what is called with words runs there."""
    host = f"127.0.0.1:{free_port()}"
    environment = {"HOME": str(folder), "OLLAMA_MODELS": str(folder / "store"), "OLLAMA_HOST": host}
    with (folder / "ollama.log").open("wb") as log:
        process = subprocess.Popen(
            [tools.ollama.path(), "serve"], env={**os.environ, **environment}, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                httpx2.get(f"http://{host}", trust_env=False)
            except httpx2.TransportError:
                if process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((folder / "ollama.log").read_text()) from None
                time.sleep(0.05)
            else:
                break
        yield lambda *words: run([tools.ollama.path(), *words], cwd=folder, env=environment)
    finally:
        process.kill()
        process.wait()
