"""POST /api/generate."""

from typing import Annotated, Final

from msgspec import Meta

from slm_contract.gotemplate import TemplateRefused, translate
from slm_runtime.api.answering import LOGPROBS, generating
from slm_runtime.api.conversation.parsing import OutputParser
from slm_runtime.api.conversation.prompt import render_chat
from slm_runtime.api.conversation.turn import ToolChoice, Turn, prepare_turn
from slm_runtime.api.delivery import deliver
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.infilling import infill_prompt, require_infill
from slm_runtime.api.ollama.ndjson import Lines
from slm_runtime.api.ollama.options import parse_format
from slm_runtime.api.ollama.requests import (
    GeneratingRequest,
    answer_load,
    parse,
    remember_keep_alive,
    shown,
)
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import GenerateRequest, Prompt
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.templates.messages import Messages

_PARAMS: Final = {"constraint": "format", "max_tokens": "options.num_predict"}


class Generate(GeneratingRequest, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    context: list[Annotated[int, Meta(ge=0, le=2**31 - 1)]] | None = None
    images: list[str] | None = None

    def check(self) -> None:
        """Refuse what can't be done.

        Raises
        ------
        BadRequest
        """
        if self.images and (self.raw or self.template or self.context or self.suffix):
            raise BadRequest("images take the model's own template, no context and no suffix", param="images")
        if self.raw and (self.template or self.system or self.context):
            raise BadRequest("raw mode does not support template, system, or context", param="raw")


async def create(serving: Serving, exchange: Exchange) -> None:
    wanted = await parse(exchange, Generate)
    served = serving.require_model(wanted.model)
    wanted.check()
    options = wanted.parsed_options(serving)
    chat = serving.require_chat()
    keep_alive = remember_keep_alive(serving, wanted.keep_alive)
    if not wanted.prompt:
        await answer_load(serving, exchange, "generate", wanted.model, keep_alive)
        return
    tokens: list[int] | None = None
    if wanted.suffix:
        turn = Turn([], parse_format(wanted.format), False, OutputParser)
        marks = require_infill(serving, "suffix")
        tokens = await infill_prompt(serving, marks, wanted.prompt, wanted.suffix, answer=options.max_tokens)
    else:
        turn = await _turn(wanted, chat)
        if not wanted.images:
            # Images have no tokens that a client could send back.
            told = await serving.engine.tokenize(
                turn.prompt, add_special=not wanted.context, parse_special=True
            )
            tokens = [*(wanted.context or []), *told]
    prompt: Prompt = turn.prompt if tokens is None else [tokens]
    request = GenerateRequest(
        prompt=prompt,
        add_special=tokens is None,
        max_tokens=options.max_tokens,
        sampling=options.sampling(),
        stop=options.stop_strings,
        logprobs=wanted.logprob_count(),
        most_logprobs=None if wanted.streams else LOGPROBS,
        constraint=turn.constraint,
        adapter=served.adapter,
        show_special=turn.show_special,
        keep_on_overflow=wanted.keep_on_overflow(options),
    )
    context = None if wanted.raw or tokens is None else tokens[:]
    answer = Lines(
        "generate", wanted.model, turn.parser(), hide_thinking=wanted.think is False, context=context
    )
    async with generating(serving, exchange, [request], _PARAMS) as tracked:
        await deliver(exchange, tracked, answer, stream=wanted.streams)


async def _turn(wanted: Generate, chat: ChatFormat) -> Turn:
    prompt, constraint = wanted.prompt or "", parse_format(wanted.format)
    if wanted.raw:
        return Turn([prompt], constraint, False, OutputParser)
    messages = [{"role": "user", **shown(wanted.images, prompt, "").fields()}]
    if wanted.system:
        messages.insert(0, {"role": "system", "content": wanted.system})
    if wanted.template:
        return Turn([await _rendered(wanted.template, messages, chat)], constraint, False, OutputParser)
    return await prepare_turn(
        chat,
        messages,
        tools=[],
        choice=ToolChoice(),
        constraint=constraint,
        variables=wanted.template_variables(chat),
    )


async def _rendered(template: str, messages: Messages, chat: ChatFormat) -> str:
    """By a request's own template, as Modelfiles have it.

    Raises
    ------
    BadRequest
        It can't be translated, or can't be rendered.
    """
    try:
        return await render_chat(chat.by(translate(template)), messages)
    except TemplateRefused as error:
        raise BadRequest(
            f"template, {error}. Templates are Go's, as in a Modelfile; a Jinja template can be set in "
            "spec.model.prompt.template of the SLMDeployment.",
            param="template",
        ) from None
