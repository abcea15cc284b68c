"""Tools, structured output and responses, as the readers in OpenAI's own client take them."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel, Field

from tests.runtime.api.server import ServeProcess

pytestmark = pytest.mark.runtime

QUESTION = "What is the capital of France? Answer in one sentence."
PARIS = "The capital of France is Paris."


class City(BaseModel):
    city: str = Field(max_length=20)
    large: bool


class Country(BaseModel):
    """Tell what a country has."""

    capital: City


class Capital(BaseModel):
    """Tell a capital."""

    city: str = Field(max_length=20)


def asked(server: ServeProcess, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": server.name, "messages": messages, "temperature": 0, "max_tokens": 60, **more}


def test_a_pydantic_model_comes_back(client: openai.OpenAI, smol: ServeProcess) -> None:
    answer = client.chat.completions.parse(**asked(smol), response_format=City)
    assert answer.choices[0].message.parsed is not None
    assert answer.choices[0].message.parsed.city == "Paris"


def test_a_pydantic_model_comes_back_from_a_stream(client: openai.OpenAI, smol: ServeProcess) -> None:
    with client.chat.completions.stream(**asked(smol), response_format=City) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed is not None
    assert json.loads(snapshots[-1]) == final.choices[0].message.parsed.model_dump()


def test_an_answer_cut_short_is_no_structure(client: openai.OpenAI, smol: ServeProcess) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**asked(smol, max_tokens=3), response_format=City)


def test_json_mode(client: openai.OpenAI, smol: ServeProcess) -> None:
    stop = {"stop": ["\n"], "max_tokens": 200}
    answer = client.chat.completions.create(**asked(smol, **stop), response_format={"type": "json_object"})
    assert (answer.choices[0].message.content or "").lstrip().startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "Capital"}}])
def test_a_tools_arguments_are_parsed_while_they_stream(
    client: openai.OpenAI, smol: ServeProcess, choice: Any
) -> None:
    tools = [openai.pydantic_function_tool(Capital)]
    with client.chat.completions.stream(**asked(smol), tools=tools, tool_choice=choice) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert final.choices[0].finish_reason == "tool_calls"
    assert call.function.parsed_arguments == done[0].parsed_arguments == Capital(city="Paris")


def test_a_tools_parameters_may_refer_to_their_definitions(client: openai.OpenAI, smol: ServeProcess) -> None:
    tools = [openai.pydantic_function_tool(Country), openai.pydantic_function_tool(Capital)]
    named: Any = {"type": "function", "function": {"name": "Country"}}
    for choice in ("required", named):
        answer = client.chat.completions.parse(**asked(smol), tools=tools, tool_choice=choice)
        (call,) = answer.choices[0].message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, Country | Capital)


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_with_tools_and_a_typed_answer_gets_one_or_the_other(
    client: openai.OpenAI, smol: ServeProcess, stream: bool
) -> None:
    wish: dict[str, Any] = {"response_format": City, "tools": [openai.pydantic_function_tool(Country)]}
    if stream:
        with client.chat.completions.stream(**asked(smol), **wish) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.parse(**asked(smol), **wish).choices[0].message
    assert isinstance(message.parsed, City) != bool(message.tool_calls)


async def test_a_called_tools_result_is_taken_back(
    async_client: openai.AsyncOpenAI, smol: ServeProcess
) -> None:
    tools = [openai.pydantic_function_tool(Capital)]
    first = await async_client.chat.completions.create(**asked(smol), tools=tools, tool_choice="required")
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Paris"}
    history = [{"role": "user", "content": QUESTION}, message.model_dump(exclude_none=True), result]
    second = await async_client.chat.completions.create(**asked(smol, messages=history), tools=tools)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert second.choices[0].finish_reason in {"stop", "length", "tool_calls"}


def test_completions_stream_with_logprobs(client: openai.OpenAI, smol: ServeProcess) -> None:
    prompt = {"model": smol.name, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
    whole = client.completions.create(**prompt, logprobs=2).choices[0]
    chunks = [chunk.choices[0] for chunk in client.completions.create(**prompt, logprobs=2, stream=True)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert whole.logprobs is not None
    assert "".join(whole.logprobs.tokens or []) == whole.text
    streamed = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.tokens or []]
    assert streamed == whole.logprobs.tokens


def test_a_response_is_parsed(client: openai.OpenAI, smol: ServeProcess) -> None:
    answer = client.responses.parse(
        model=smol.name, input=QUESTION, text_format=City, temperature=0, max_output_tokens=60
    )
    assert answer.output_parsed is not None
    assert answer.output_parsed.city == "Paris"


async def test_a_response_calls_a_tool_and_goes_on(
    async_client: openai.AsyncOpenAI, smol: ServeProcess
) -> None:
    tool: Any = {"type": "function", **openai.pydantic_function_tool(Capital)["function"]}
    given: list[Any] = [{"role": "user", "content": QUESTION}]
    settings: Any = {"model": smol.name, "temperature": 0, "max_output_tokens": 60, "tools": [tool]}
    async with async_client.responses.stream(input=given, tool_choice="required", **settings) as stream:
        kinds = [event.type async for event in stream]
        final: Response = await stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Paris"}
    assert kinds[-4:] == [
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    given += [*final.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Paris"}]
    after = await async_client.responses.create(input=given, **settings)
    assert after.usage is not None
    assert final.usage is not None
    assert after.usage.input_tokens > final.usage.input_tokens


def test_a_conversation_of_responses(client: openai.OpenAI, smol: ServeProcess) -> None:
    settings: Any = {"model": smol.name, "temperature": 0, "max_output_tokens": 24}
    first = client.responses.create(input=QUESTION, instructions="Be brief.", **settings)
    assert first.output_text == PARIS
    question = {"role": "user", "content": "And of Italy?"}
    again = client.responses.create(
        input=[{"role": "user", "content": QUESTION}, *first.output, question], **settings
    )
    assert again.output_text
    assert again.status in {"completed", "incomplete"}
