"""What a deployment says of its model: a request's own word goes before it, the API's default after it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import ollama
import openai
import pytest

from slm_contract.config import PromptConfig, PromptMessage, PromptParameters
from slm_runtime.errors import ConfigError
from slm_runtime.serve import check_context, prompt_of
from tests.unit.runtime_api.scripted import FACTS, MODEL, Running, config, running

HI = [{"role": "user", "content": "Hi"}]
ASK: dict[str, Any] = {"model": MODEL, "messages": HI}
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
PROMPT = PromptConfig(
    system="Be kind.",
    template=TEMPLATE,
    stop=("END",),
    parameters=PromptParameters(
        temperature=0.25,
        top_k=7,
        top_p=0.75,
        min_p=0.125,
        typical_p=0.5,
        repeat_penalty=1.5,
        repeat_last_n=16,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        seed=11,
        max_tokens=2,
    ),
)


@pytest.fixture
async def api() -> AsyncIterator[Running]:
    async with running(prompt=PROMPT) as it:
        yield it


@pytest.fixture
async def vendor(api: Running) -> AsyncIterator[ollama.AsyncClient]:
    it = ollama.AsyncClient(host=api.base, trust_env=False)
    yield it
    await it._client.aclose()


def of_the_deployment(api: Running) -> None:
    request = api.engine.requests[-1]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.25, 7, 0.75, 0.125)
    assert (sampling.typical_p, sampling.repeat_penalty, sampling.penalty_window) == (0.5, 1.5, 16)
    assert (sampling.frequency_penalty, sampling.presence_penalty, sampling.seed) == (0.5, -0.5, 11)
    assert (request.max_tokens, request.stop) == (2, ["END"])


async def test_examples_stand_between_the_system_message_and_the_conversation() -> None:
    said = (PromptMessage(role="user", content="7?"), PromptMessage(role="assistant", content="prime"))
    async with running(prompt=PromptConfig(template=TEMPLATE, messages=said)) as api:
        client = openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="-", http_client=None, max_retries=0)
        own = {"role": "system", "content": "Mine."}
        await client.chat.completions.create(**ASK)
        await client.chat.completions.create(model=MODEL, messages=[own, *HI])  # type: ignore[list-item]
        vendor = ollama.AsyncClient(host=api.base, trust_env=False)
        await vendor.generate(MODEL, "Hi")
        shown = await vendor._client.post("/api/show", json={"model": MODEL})
        await vendor._client.aclose()
        await client.close()
    prompts = [request.prompt[0] for request in api.engine.requests]
    assert prompts[:2] == [
        "[user]7?[assistant]prime[user]Hi[assistant]",
        "[system]Mine.[user]7?[assistant]prime[user]Hi[assistant]",
    ]
    assert bytes(prompts[2]).decode() == "[user]7?[assistant]prime[user]Hi[assistant]"
    assert shown.json()["messages"] == [{"role": each.role, "content": each.content} for each in said]
    assert 'MESSAGE assistant """prime"""' in shown.json()["modelfile"]


async def test_openai_requests_that_do_not_say(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.chat.completions.create(**ASK)
    of_the_deployment(api)
    assert api.engine.requests[-1].prompt == ["[system]Be kind.[user]Hi[assistant]"]
    answer = await client.responses.create(model=MODEL, input="Hi")
    of_the_deployment(api)
    assert (answer.temperature, answer.top_p) == (0.25, 0.75)
    assert api.engine.requests[-1].prompt == ["[system]Be kind.[user]Hi[assistant]"]
    await client.completions.create(model=MODEL, prompt="Once")
    of_the_deployment(api)
    # A text that goes on is no conversation.
    assert api.engine.requests[-1].prompt == ["Once"]


async def test_ollama_requests_that_do_not_say(vendor: ollama.AsyncClient, api: Running) -> None:
    await vendor.chat(MODEL, HI)
    of_the_deployment(api)
    assert api.engine.requests[-1].prompt == ["[system]Be kind.[user]Hi[assistant]"]
    await vendor.generate(MODEL, "Hi")
    of_the_deployment(api)
    assert bytes(api.engine.requests[-1].prompt[0]) == b"[system]Be kind.[user]Hi[assistant]"
    await vendor.generate(MODEL, "Hi", template="{{ .System }}|{{ .Prompt }}")
    assert bytes(api.engine.requests[-1].prompt[0]) == b"Be kind.|Hi"
    await vendor.generate(MODEL, "Hi", raw=True)
    assert bytes(api.engine.requests[-1].prompt[0]) == b"Hi"


async def test_a_requests_own_word_wins(
    client: openai.AsyncOpenAI, vendor: ollama.AsyncClient, api: Running
) -> None:
    own = [{"role": "system", "content": "Be rude."}, *HI]
    await client.chat.completions.create(
        model=MODEL, messages=own, temperature=0, top_p=1, seed=0, max_tokens=1, stop=["X"]
    )
    request = api.engine.requests[-1]
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (0, 1, 0)
    assert (request.max_tokens, request.stop) == (1, ["X"])
    assert request.prompt == ["[system]Be rude.[user]Hi[assistant]"]
    await vendor.chat(MODEL, own, options={"temperature": 0, "top_k": 0, "stop": [], "num_predict": -1})
    request = api.engine.requests[-1]
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (0, 0, 0.75)
    assert (request.max_tokens, request.stop) == (None, [])
    assert request.prompt == ["[system]Be rude.[user]Hi[assistant]"]


async def test_what_is_not_said_is_the_apis_own() -> None:
    prompt = PromptConfig(parameters=PromptParameters(top_k=7))
    async with running(prompt=prompt) as api:
        vendor = ollama.AsyncClient(host=api.base, trust_env=False)
        await vendor.chat(MODEL, HI)
        await vendor._client.aclose()
        async with openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none") as client:
            await client.chat.completions.create(**ASK)
        theirs, ours = (request.sampling for request in api.engine.requests)
    assert (theirs.temperature, theirs.top_k, theirs.top_p) == (0.8, 7, 0.9)
    assert (ours.temperature, ours.top_k, ours.top_p) == (1.0, 7, 1.0)


async def test_show_tells_of_it(vendor: ollama.AsyncClient, http: httpx.AsyncClient) -> None:
    shown = await vendor.show(MODEL)
    assert shown.template == TEMPLATE
    parameters = dict(line.split(maxsplit=1) for line in (shown.parameters or "").splitlines())
    assert parameters["temperature"] == "0.25"
    assert parameters["num_predict"] == "2"
    assert parameters["stop"] == '"END"'
    assert 'SYSTEM """Be kind."""' in (shown.modelfile or "")
    assert "PARAMETER top_k 7" in (shown.modelfile or "")
    assert (await http.post("/api/show", json={"model": MODEL})).json()["system"] == "Be kind."


async def test_a_template_that_cannot_be_used_keeps_the_pod_unready_and_says_which() -> None:
    async with running(prompt=PromptConfig(template="{% for m in messages %}")) as api:
        assert api.serving.not_started() is None
        failure = api.serving.report().failure
        assert failure is not None
        assert failure.reason == "ConfigInvalid"
        assert "spec.model.prompt.template" in failure.message
        assert "spec.model.prompt.template" in failure.remedy
        assert "spec.model.prompt.template" in (api.serving.unready() or "")


def test_what_the_source_says_stands_where_the_spec_says_nothing() -> None:
    source = PromptConfig(
        system="Of the source.",
        stop=("</s>",),
        parameters=PromptParameters(temperature=0.1, top_k=3, max_tokens=5),
    )
    spec = PromptConfig(system="", template=TEMPLATE, parameters=PromptParameters(temperature=0, seed=1))
    assert prompt_of(None, None) is None
    assert prompt_of(spec, None) == spec
    assert prompt_of(None, source) == source
    assert prompt_of(PromptConfig(), source) == source
    assert prompt_of(spec, source) == PromptConfig(
        system="",
        template=TEMPLATE,
        stop=("</s>",),
        parameters=PromptParameters(temperature=0, top_k=3, max_tokens=5, seed=1),
    )
    assert prompt_of(PromptConfig(system="Mine."), PromptConfig(stop=("x",))) == PromptConfig(
        system="Mine.", stop=("x",)
    )


async def test_another_prompt_is_another_fingerprint() -> None:
    async with running() as plain, running(prompt=PROMPT) as told:
        assert plain.serving.fingerprint != told.serving.fingerprint


def test_a_context_beyond_what_the_model_reaches_is_refused() -> None:
    for length in (None, 2048):
        check_context(config(context_length=length), FACTS)
    with pytest.raises(ConfigError, match=r"4096 tokens is longer than the 2048"):
        check_context(config(context_length=4096), FACTS)
    check_context(config(context_length=4096), FACTS.model_copy(update={"scaled_context_length": 8192}))
    check_context(config(context_length=4096), FACTS.model_copy(update={"context_length": 0}))
