"""What people write with OpenAI's Agents SDK, LiteLLM and pydantic-ai; runs in the agents' own environment."""

import asyncio
import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the Internet for prices

import litellm
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from telling import BASE, KEY, MODEL, tell

QUESTION = "What is the weather in the capital of France?"
PLAIN = "Say something."
set_tracing_disabled(True)
litellm.suppress_debug_info = True


class City(BaseModel):
    city: str
    days: int


used: list[Any] = []


def capital(country: str) -> str:
    """The capital of a country."""
    used.append(["capital", country])
    return "Paris"


def weather(city: str, days: int) -> str:
    """The weather in a city."""
    used.append(["weather", city, days])
    return "Rain."


def with_use(made: Any) -> Any:
    """What was made, and the tools that were used for it."""
    tools, used[:] = list(used), []
    return {"made": made, "tools": tools}


def client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0)


def agents_models() -> dict[str, Any]:
    return {
        "chat": OpenAIChatCompletionsModel(MODEL, client()),
        "responses": OpenAIResponsesModel(MODEL, client()),
    }


def agent(model: Any, **more: Any) -> Any:
    return Agent(name="A", instructions="Be brief.", model=model, **more)


TOOLS = [function_tool(capital), function_tool(weather)]


async def _agents(run: Any) -> Any:
    return {name: with_use(await run(model)) for name, model in agents_models().items()}


def agents_chat() -> Any:
    async def run(model: Any) -> Any:
        return (await Runner.run(agent(model), PLAIN)).final_output

    return asyncio.run(_agents(run))


def agents_stream() -> Any:
    async def run(model: Any) -> Any:
        streamed = Runner.run_streamed(agent(model, tools=TOOLS), QUESTION)
        kinds = [event.type async for event in streamed.stream_events()]
        return [streamed.final_output, "raw_response_event" in kinds]

    return asyncio.run(_agents(run))


def agents_tools() -> Any:
    async def run(model: Any) -> Any:
        return (await Runner.run(agent(model, tools=TOOLS), QUESTION)).final_output

    return asyncio.run(_agents(run))


def agents_structured() -> Any:
    async def run(model: Any) -> Any:
        result = await Runner.run(agent(model, tools=TOOLS, output_type=City), QUESTION)
        return result.final_output.model_dump()

    return asyncio.run(_agents(run))


SCHEMAS = [
    {
        "type": "function",
        "function": {
            "name": "capital",
            "parameters": {"type": "object", "properties": {"country": {"type": "string"}}},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    },
]
LITELLM = {
    "openai": {"model": f"openai/{MODEL}", "api_base": f"{BASE}/v1"},
    "hosted_vllm": {"model": f"hosted_vllm/{MODEL}", "api_base": f"{BASE}/v1"},
    "anthropic": {"model": f"anthropic/{MODEL}", "api_base": BASE, "max_tokens": 100},
    "ollama_chat": {
        "model": f"ollama_chat/{MODEL}",
        "api_base": BASE,
        "extra_headers": {"Authorization": f"Bearer {KEY}"},
    },
}


def completion(way: str, content: Any, **more: Any) -> Any:
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return litellm.completion(**LITELLM[way], api_key=KEY, messages=messages, num_retries=0, **more)


def litellm_chat() -> Any:
    return {way: completion(way, PLAIN).choices[0].message.content for way in LITELLM}


def litellm_stream() -> Any:
    return {
        way: "".join(chunk.choices[0].delta.content or "" for chunk in completion(way, PLAIN, stream=True))
        for way in LITELLM
    }


def litellm_tools() -> Any:
    return {way: with_use(_loop(way)) for way in LITELLM}


def _loop(way: str) -> Any:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(3):
        chunks = list(completion(way, messages, tools=SCHEMAS, stream=True))
        message = litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or []:
            run = {"capital": capital, "weather": weather}[call.function.name]
            result = run(**json.loads(call.function.arguments))
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": result}
            )
    return message.content


def litellm_structured() -> Any:
    ways = ("openai", "hosted_vllm", "ollama_chat")
    return {
        way: json.loads(completion(way, PLAIN, response_format=City).choices[0].message.content)
        for way in ways
    }


def pydantic_models() -> dict[str, Any]:
    provider = OpenAIProvider(openai_client=client())
    return {
        "chat": OpenAIChatModel(MODEL, provider=provider),
        "responses": PydanticResponsesModel(MODEL, provider=provider),
        "anthropic": AnthropicModel(MODEL, provider=AnthropicProvider(api_key=KEY, base_url=BASE)),
    }


async def _pydantic(run: Any, ways: tuple[str, ...] = ("chat", "responses", "anthropic")) -> Any:
    models = pydantic_models()
    return {way: with_use(await run(models[way])) for way in ways}


def pydantic_chat() -> Any:
    async def run(model: Any) -> Any:
        return (await PydanticAgent(model).run(PLAIN)).output

    return asyncio.run(_pydantic(run))


def pydantic_stream() -> Any:
    async def run(model: Any) -> Any:
        async with PydanticAgent(model).run_stream(PLAIN) as streamed:
            return await streamed.get_output()

    return asyncio.run(_pydantic(run))


def pydantic_tools() -> Any:
    async def run(model: Any) -> Any:
        return (await PydanticAgent(model, tools=[capital, weather]).run(QUESTION)).output

    return asyncio.run(_pydantic(run))


def pydantic_structured() -> Any:
    async def run(model: Any) -> Any:
        return (await PydanticAgent(model, output_type=NativeOutput(City)).run(PLAIN)).output.model_dump()

    # Of a model that it doesn't know by name, the library takes it that Anthropic's protocol has no such thing.
    return asyncio.run(_pydantic(run, ("chat", "responses")))


tell(
    agents_chat,
    agents_stream,
    agents_tools,
    agents_structured,
    litellm_chat,
    litellm_stream,
    litellm_tools,
    litellm_structured,
    pydantic_chat,
    pydantic_stream,
    pydantic_tools,
    pydantic_structured,
)
