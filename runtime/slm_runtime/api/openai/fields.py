"""Every field of OpenAI's requests, and what becomes of it here; the documentation is made from this.

A field is honoured, accepted without effect, or refused by name. One that isn't listed is ignored, and the answer
says so in a header: agents send what other servers know, and end where they get a 400. A deployment may refuse them
instead, as misspellings. A test holds these tables against the vendor's own client and against the request types.
"""

import re
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec

from slm_runtime.api.http.problems import BadRequest

_Request = TypeVar("_Request", bound=msgspec.Struct)
_MISSING: Final = re.compile(r"Object missing required field `(.+)`")


class Use(Enum):
    HONOURED = "honoured"
    NO_EFFECT = "accepted without effect"
    REFUSED = "refused by name"
    EXTENSION = "honoured, beyond OpenAI's schema"
    FOREIGN = "accepted without effect, beyond OpenAI's schema"


Fields = dict[str, tuple[Use, str]]
"""Name to use and, where there is something to say, why or how."""

_HOSTED: Final = "a matter of OpenAI's hosted service"

SAMPLING: Final[Fields] = {
    "temperature": (Use.HONOURED, ""),
    "top_p": (Use.HONOURED, ""),
    "seed": (Use.HONOURED, "the same draws, see The same text again; -1: none"),
    "stop": (Use.HONOURED, "a string or up to 16; empty ones are none"),
    "frequency_penalty": (Use.HONOURED, ""),
    "presence_penalty": (Use.HONOURED, ""),
    "logit_bias": (Use.HONOURED, "token ids are the model's own"),
    "n": (Use.HONOURED, "the choices share one prefill"),
    "stream": (Use.HONOURED, ""),
    "stream_options": (
        Use.HONOURED,
        "include_usage, in a stream; include_obfuscation and vLLM's continuous_usage_stats have no effect",
    ),
    "user": (Use.NO_EFFECT, _HOSTED),
    "top_k": (Use.EXTENSION, "0 or -1: all tokens"),
    "min_p": (Use.EXTENSION, ""),
    "typical_p": (Use.EXTENSION, ""),
    "repeat_penalty": (Use.EXTENSION, ""),
    "repetition_penalty": (
        Use.EXTENSION,
        "vLLM's: like repeat_penalty, and what the prompt holds counts too",
    ),
    "repeat_last_n": (Use.EXTENSION, "tokens that the penalties look back on; -1: all"),
    "stop_token_ids": (Use.EXTENSION, "vLLM's: the answer ends before the first of these tokens"),
    "skip_special_tokens": (Use.EXTENSION, "vLLM's; false: special tokens appear in the text"),
    "structured_outputs": (Use.EXTENSION, "vLLM's: json, regex, choice or grammar"),
    "guided_json": (Use.EXTENSION, "vLLM's of before, as are the three that follow"),
    "guided_regex": (Use.EXTENSION, ""),
    "guided_choice": (Use.EXTENSION, ""),
    "guided_grammar": (Use.EXTENSION, ""),
    "grammar": (Use.EXTENSION, "llama-server's GBNF, or Lark"),
    "json_schema": (Use.EXTENSION, "llama-server's: a schema by itself"),
    "cache_prompt": (Use.FOREIGN, "llama-server's; the prefix cache is always on"),
    "ignore_eos": (Use.EXTENSION, "for measurements: generate to the limit"),
}

CHAT: Final[Fields] = {
    **SAMPLING,
    "model": (Use.HONOURED, ""),
    "messages": (Use.HONOURED, "text, and images where the model sees any, see Images; audio is refused"),
    "max_tokens": (Use.HONOURED, "-1: what the deployment or the context allows"),
    "max_completion_tokens": (Use.HONOURED, "wins over max_tokens"),
    "logprobs": (Use.HONOURED, ""),
    "top_logprobs": (Use.HONOURED, ""),
    "response_format": (
        Use.HONOURED,
        "text, json_object (llama-server's schema beside it, too), json_schema",
    ),
    "modalities": (Use.HONOURED, 'only ["text"]'),
    "chat_template_kwargs": (Use.EXTENSION, "variables for the model's chat template"),
    "enable_thinking": (Use.EXTENSION, "where the model's chat template has such a setting"),
    "thinking": (Use.EXTENSION, "likewise: true, false, or an object whose type is enabled or disabled"),
    "think": (Use.EXTENSION, "likewise, Ollama's: true, false, or a level"),
    "reasoning": (Use.EXTENSION, "likewise, an object with effort or enabled"),
    "continue_final_message": (Use.EXTENSION, "vLLM's: the model goes on with the assistant's last message"),
    "add_generation_prompt": (Use.FOREIGN, "vLLM's; see continue_final_message"),
    "metadata": (Use.NO_EFFECT, _HOSTED),
    "store": (Use.NO_EFFECT, "nothing is ever stored"),
    "service_tier": (Use.NO_EFFECT, _HOSTED),
    "safety_identifier": (Use.NO_EFFECT, _HOSTED),
    "prompt_cache_key": (Use.NO_EFFECT, "the prefix cache finds shared prefixes by itself"),
    "prompt_cache_retention": (Use.NO_EFFECT, "likewise"),
    "prompt_cache_options": (Use.NO_EFFECT, "likewise"),
    "prediction": (
        Use.HONOURED,
        "what agrees with it comes faster, where the engine speculates; usage tells how many tokens",
    ),
    "reasoning_effort": (
        Use.HONOURED,
        "where the model's chat template has such a setting; none: no thinking",
    ),
    "tools": (
        Use.HONOURED,
        "functions; models whose template knows no tools are taught them in the prompt",
    ),
    "tool_choice": (
        Use.HONOURED,
        "required and a named function constrain the answer to one call; of allowed_tools, the others are not shown",
    ),
    "parallel_tool_calls": (Use.HONOURED, "false: only the first call is returned"),
    "verbosity": (Use.NO_EFFECT, "no model here has such a setting"),
    "audio": (Use.REFUSED, "the models here write text"),
    "web_search_options": (Use.REFUSED, "nothing here searches the web"),
    "moderation": (Use.REFUSED, "nothing here moderates"),
    "functions": (Use.REFUSED, "superseded by `tools`"),
    "function_call": (Use.REFUSED, "superseded by `tool_choice`"),
}

COMPLETION: Final[Fields] = {
    **SAMPLING,
    "model": (Use.HONOURED, ""),
    "prompt": (
        Use.HONOURED,
        "a text, tokens, or a list of either; tokens get none of the model's own before them",
    ),
    "max_tokens": (Use.HONOURED, "16 by default, and with -1, as OpenAI's; 0: the prompt alone is looked at"),
    "logprobs": (
        Use.HONOURED,
        "up to 20; with echo, of the prompt's tokens too, the first of which has none",
    ),
    "echo": (Use.HONOURED, ""),
    "best_of": (Use.HONOURED, "by mean log probability"),
    "suffix": (Use.HONOURED, "of models that fill in the middle; not with echo or max_tokens 0"),
}

EMBEDDING: Final[Fields] = {
    "model": (Use.HONOURED, ""),
    "input": (Use.HONOURED, "a text, tokens, or a list of either"),
    "encoding_format": (Use.HONOURED, "float or base64"),
    "dimensions": (
        Use.HONOURED,
        "up to the model's own; shortened and normalised again; meant for models trained for it",
    ),
    "user": (Use.NO_EFFECT, _HOSTED),
    "truncate_prompt_tokens": (Use.EXTENSION, "vLLM's; -1: what exceeds the context is cut off at its end"),
}

RESPONSE: Final[Fields] = {
    "model": (Use.HONOURED, ""),
    "input": (Use.HONOURED, "text, messages with their images, function calls and their outputs"),
    "instructions": (Use.HONOURED, ""),
    "max_output_tokens": (Use.HONOURED, ""),
    "temperature": (Use.HONOURED, ""),
    "top_p": (Use.HONOURED, ""),
    "text": (Use.HONOURED, "format: text, json_object, json_schema"),
    "reasoning": (Use.HONOURED, "effort, where the model's chat template has such a setting"),
    "tools": (Use.HONOURED, "functions"),
    "tool_choice": (Use.HONOURED, "of allowed_tools, the others are not shown"),
    "parallel_tool_calls": (Use.HONOURED, "false: only the first call is returned"),
    "truncation": (Use.HONOURED, "auto: the oldest turns of a conversation that is too long go"),
    "stream": (Use.HONOURED, ""),
    "stream_options": (Use.HONOURED, "include_obfuscation has no effect"),
    "metadata": (Use.HONOURED, "given back"),
    "user": (Use.NO_EFFECT, _HOSTED),
    "store": (Use.HONOURED, "with spec.endpoint.storedResponses; else nothing is stored"),
    "service_tier": (Use.NO_EFFECT, _HOSTED),
    "safety_identifier": (Use.NO_EFFECT, _HOSTED),
    "prompt_cache_key": (Use.NO_EFFECT, "the prefix cache finds shared prefixes by itself"),
    "prompt_cache_retention": (Use.NO_EFFECT, "likewise"),
    "prompt_cache_options": (Use.NO_EFFECT, "likewise"),
    "include": (Use.HONOURED, "message.output_text.logprobs is refused; there is nothing further to include"),
    "max_tool_calls": (Use.NO_EFFECT, "it bounds tools that OpenAI runs itself"),
    "top_logprobs": (Use.REFUSED, "use /v1/chat/completions for log probabilities"),
    "previous_response_id": (
        Use.HONOURED,
        "with spec.endpoint.storedResponses; else refused: send the whole conversation in `input`",
    ),
    "conversation": (Use.REFUSED, "no conversations are stored; send the whole conversation in `input`"),
    "background": (Use.REFUSED, "an answer is made for the request that waits for it"),
    "background_options": (Use.REFUSED, "likewise"),
    "prompt": (Use.REFUSED, "prompt templates are stored at OpenAI"),
    "context_management": (Use.REFUSED, "send the conversation as the model shall see it"),
    "access_programs": (Use.REFUSED, _HOSTED),
    "image": (Use.REFUSED, "the models here write text"),
    "moderation": (Use.REFUSED, "nothing here moderates"),
    "ignore_eos": SAMPLING["ignore_eos"],
}


_NAMES: Final = 16
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")


def take_unknown(document: dict[str, Any], fields: Fields) -> list[str]:
    """Take what isn't listed out of a request; returns the names, fit for a header: some of them, none of them long."""
    unknown = [name for name in document if name not in fields]
    for name in unknown:
        del document[name]
    return [_NO_NAME.sub("_", name[:64]) for name in unknown[:_NAMES]]


UNSAID: Final = {
    "max_tokens": -1,
    "max_completion_tokens": -1,
    "max_output_tokens": -1,
    "seed": -1,
    "stop": "",
}
"""What clients of llama-server, vLLM and Ollama write where they leave a field to the server."""


def without_effect(fields: Fields) -> tuple[str, ...]:
    return tuple(name for name, (use, _) in fields.items() if use in {Use.NO_EFFECT, Use.FOREIGN})


def check(document: dict[str, Any], fields: Fields) -> None:
    """Refuse by name what isn't served.

    Raises
    ------
    BadRequest
    """
    for name, value in document.items():
        known = fields.get(name)
        if known is None:
            raise BadRequest(
                f"Unrecognized request argument supplied: {name[:100]!r}.",
                param=name[:100],
                code="unknown_parameter",
            )
        use, why = known
        # Some clients write out what they don't ask for: null, false, 0, an empty text or list.
        if use is Use.REFUSED and value not in (None, False, "", []):
            raise BadRequest(
                f"{name!r} is not supported here: {why}. Leave it out.",
                param=name,
                code="unsupported_parameter",
            )


def parse(document: dict[str, Any], kind: type[_Request], fields: Fields) -> _Request:
    """Check a request's fields and types.

    Raises
    ------
    BadRequest
        With `param`, where one field is to blame.
    """
    check(document, fields)
    for name, value in UNSAID.items():
        if document.get(name) == value:
            del document[name]
    for name, (use, _) in fields.items():
        if use in {Use.NO_EFFECT, Use.FOREIGN, Use.REFUSED}:
            document.pop(name, None)
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except RecursionError:
        raise BadRequest("The request is nested too deeply.") from None


def invalid(error: msgspec.ValidationError, within: str = "") -> BadRequest:
    """Take "Expected `int`, got `str` - at `$.n`" apart: the path that it ends with, below `within`, is the `param`."""
    sentence, _, path = str(error).partition(" - at `$.")
    param: str | None = ".".join(part for part in (within, path.removesuffix("`")) if part) or None
    missing = _MISSING.match(sentence)
    if missing:
        name = f"{param}.{missing[1]}" if param else missing[1]
        return BadRequest(
            f"Missing required parameter: {name!r}.", param=name, code="missing_required_parameter"
        )
    where = f" for {param!r}" if param else ""
    code = "invalid_type" if ", got `" in sentence else "invalid_value"
    return BadRequest(f"Invalid value{where}: {sentence}.", param=param, code=code)
