"""The clients that don't live in the main environment, each kind in one of its own, kept in the cache.

The frameworks bring seventy packages and older versions of some that we pin ourselves; the JavaScript clients need
Node. Both are pinned exactly, and told where the server is by their environment alone.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Protocol

from tests.cluster import cache
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError
from tests.runtime.api.server import KEY

HERE = Path(__file__).parent
PINNED = HERE.parents[2] / "requirements" / "clients.txt"
AGENTS = HERE.parents[2] / "requirements" / "agents.txt"
PACKAGE = HERE / "node" / "package.json"
OLDEST_NODE = 20
SECONDS = 240
"""More than any of these takes on a busy machine; a client that hangs is ended then."""


class NoNode(HarnessError):
    """Why the JavaScript clients can't run here."""


class Asked(Protocol):
    """A server."""

    @property
    def base(self) -> str: ...

    @property
    def name(self) -> str: ...


def frameworks() -> Path:
    """Python with LangChain and LlamaIndex."""
    note = "LangChain, LlamaIndex and what they need, about 1 min, once"
    return _python("frameworks", PINNED, note)


def agents() -> Path:
    """Python with OpenAI's Agents SDK, LiteLLM and pydantic-ai."""
    return _python("agents", AGENTS, "agents' libraries and what they need, about 1 min, once")


def _python(name: str, pinned: Path, note: str) -> Path:
    def build(folder: Path) -> None:
        # The folder gets another name when it is complete: nothing of it is used that knows its own path.
        run([sys.executable, "-m", "venv", "--without-pip", folder])
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-compile"]
        run([sys.executable, "-m", "pip", "--python", folder, "install", *options, "-r", pinned])

    inputs = {"pinned": pinned.read_text(), "python": sys.version}
    return cache.built("clients", name, inputs, build, note=note) / "bin" / "python"


def node() -> Path:
    """The folder from which the vendors' JavaScript packages can be imported.

    Raises
    ------
    NoNode
    """
    if not (shutil.which("node") and shutil.which("npm")):
        raise NoNode("node and npm are not installed")
    version = run(["node", "--version"]).strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        raise NoNode(f"node is {version}; the clients need {OLDEST_NODE} or newer")

    def build(folder: Path) -> None:
        shutil.copy(PACKAGE, folder)
        options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run(["npm", "install", *options], cwd=folder)

    inputs = {"package": PACKAGE.read_text()}
    return cache.built("node", "clients", inputs, build, note="npm's clients, seconds, once")


def tell_framework(script: str, server: Asked) -> Any:
    """Run ``frameworks/SCRIPT`` against *server*; what it tells of its answers."""
    return _told([frameworks(), HERE / "frameworks" / script], server)


def tell_agents(script: str, server: Asked) -> Any:
    """Likewise in the agents' environment."""
    return _told([agents(), HERE / "frameworks" / script], server)


def tell_node(script: str, server: Asked) -> Any:
    """Run ``node/SCRIPT`` against *server*; what it tells of its answers."""
    return _told(["node", HERE / "node" / script], server, SLM_PACKAGES=f"{node()}/")


def _told(argv: list[str | Path], server: Asked, **more: str) -> Any:
    where = {"SLM_BASE": server.base, "SLM_KEY": KEY, "SLM_MODEL": server.name, "NO_PROXY": "127.0.0.1"}
    return json.loads(run(argv, env={**where, **more}, timeout=SECONDS))
