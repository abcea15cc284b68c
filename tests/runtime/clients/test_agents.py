"""Agents' libraries in loops of two rounds, by every protocol that they speak: the real API, a played model."""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.runtime.api.server import KEY
from tests.runtime.clients.agent import ANSWER, AgentEngine
from tests.runtime.clients.environments import tell_agents, tell_node
from tests.unit.runtime_api.scripted import MODEL, running

pytestmark = pytest.mark.runtime

USED = [["capital", "France"], ["weather", "Paris", 2]]
FORM = {"city": "Paris", "days": 2}


class _Server(NamedTuple):
    base: str
    name: str = MODEL


def _told(tell: Any, script: str, keys: Path) -> Any:
    """With responses stored, as the vendors' clients take it for granted."""
    (keys / "key").write_text(KEY)

    async def run() -> Any:
        async with running(AgentEngine(), keys=keys, stored_responses=100) as api:
            return await asyncio.to_thread(tell, script, _Server(api.base))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _told(tell_agents, "agent_clients.py", tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def javascript(node: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _told(tell_node, "agents.mjs", tmp_path_factory.mktemp("keys"))


def _each(told: dict[str, Any], ways: int, made: Any, tools: Any) -> None:
    assert len(told) == ways, told
    assert [one for one in told.values() if one != {"made": made, "tools": tools}] == []


def test_openais_agents_sdk(python: Any) -> None:
    _each(python["agents_chat"], 2, ANSWER, [])
    _each(python["agents_stream"], 2, [ANSWER, True], USED)
    _each(python["agents_tools"], 2, ANSWER, USED)
    _each(python["agents_structured"], 2, FORM, USED)


def test_litellm(python: Any) -> None:
    ways = ("openai", "hosted_vllm", "anthropic", "ollama_chat")
    assert python["litellm_chat"] == dict.fromkeys(ways, ANSWER)
    assert python["litellm_stream"] == dict.fromkeys(ways, ANSWER)
    _each(python["litellm_tools"], 4, ANSWER, USED)
    assert list(python["litellm_structured"].values()) == [FORM] * 3


def test_pydantic_ai(python: Any) -> None:
    _each(python["pydantic_chat"], 3, ANSWER, [])
    _each(python["pydantic_stream"], 3, ANSWER, [])
    _each(python["pydantic_tools"], 3, ANSWER, USED)
    _each(python["pydantic_structured"], 2, FORM, [])


def test_vercels_ai_sdk(javascript: Any) -> None:
    ways = ("responses", "chat", "compatible", "anthropic")
    assert javascript["chat"] == dict.fromkeys(ways, ANSWER)
    assert javascript["stream"] == dict.fromkeys(ways, ANSWER)
    assert javascript["tools"] == {way: {"text": ANSWER, "used": USED} for way in ways}
    streamed = {"text": ANSWER, "used": USED, "pieces": True}
    assert list(javascript["streamedTools"].values()) == [streamed] * len(ways)
    assert javascript["structured"] == {**dict.fromkeys(ways, FORM), "anthropic": None}


def test_anthropics_javascript(javascript: Any) -> None:
    assert javascript["message"] == {"text": ANSWER, "stop": "end_turn"}
    assert javascript["messageStream"] == ANSWER
    calls = [("capital", {"country": "France"}), ("weather", {"city": "Paris", "days": 2})]
    used = [{"name": name, "input": given, "pieces": True} for name, given in calls]
    assert javascript["messageTools"] == {"text": ANSWER, "used": used}
