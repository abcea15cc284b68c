"""A model that uses two tools, one after the other, played, behind the real API."""

from typing import Any

from slm_runtime.engine.messages import GenerateRequest
from tests.unit.runtime_api.scripted import Script, ScriptedEngine, ScriptedGeneration

CALLS = (
    'I look.\n<tool_call>\n{"name": "capital", "arguments": {"country": "France"}}\n</tool_call>',
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>',
)
ANSWER = "It rains in Paris."
FORM = '{"city": "Paris", "days": 2}'


class AgentEngine(ScriptedEngine):
    """Calls while tools are offered and their results are missing, then answers, in the form that is asked for."""

    async def generate(self, request: GenerateRequest) -> ScriptedGeneration:
        self.script = Script(pieces=list(_written(request)))
        return await super().generate(request)

    async def tokenize(self, text: str, **_: Any) -> list[int]:
        """However long prompts are, they fit."""
        return list(text.encode()[:100])


def _written(request: GenerateRequest) -> str:
    prompt = str(request.prompt[0])
    results = prompt.count("<tool_response>\n")
    if request.constraint is not None and request.constraint.kind == "json_schema_or":
        calls = [call.partition("<tool_call>\n")[2].removesuffix("\n</tool_call>") for call in CALLS]
        return calls[results] if results < len(CALLS) else FORM
    if request.constraint is not None:
        demanded = '"name"' in request.constraint.text and '"arguments"' in request.constraint.text
        return '{"name": "capital", "arguments": {"country": "France"}}' if demanded else FORM
    return CALLS[results] if "<tools>" in prompt and results < len(CALLS) else ANSWER
