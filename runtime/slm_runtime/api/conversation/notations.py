"""How calls begin in each notation, and how their arguments are written: what lets them be told while they grow.

Each stands for what a reader of whole calls understands.
"""
# ruff: noqa: RUF001

import re
from dataclasses import replace
from functools import partial
from typing import Final

from slm_runtime.api.conversation.bodies import ElementsBody, GemmaBody, JsonBody, PythonBody
from slm_runtime.api.conversation.element_readers import GLM_ELEMENTS, INVOKE, PARAM, QWEN
from slm_runtime.api.conversation.growing import Notation

_JSON_NAME: Final = r'(?P<name>"(?:[^"\\]|\\.)+")'


def _json_call(name: str, arguments: str) -> Notation:
    return Notation(
        re.compile(
            r"[\s;,\[\]}]*(?:```(?:json)?\s*)?[\s\[]*\{\s*"
            r'(?:"(?:type|id|tool_call_id)"\s*:\s*"[^"\\]*"\s*,\s*)*(?:"function"\s*:\s*\{\s*)?'
            rf'"(?:{name})"\s*:\s*{_JSON_NAME}\s*,\s*"(?:{arguments})"\s*:\s*(?=\{{)'
        ),
        JsonBody,
    )


JSON: Final = (_json_call("name|tool_name", "arguments|parameters"),)
KEYED: Final = (Notation(re.compile(rf"[\s;,\[\]}}]*\{{\s*{_JSON_NAME}\s*:\s*(?=\{{)"), JsonBody),)
MISTRAL: Final = (
    *JSON,
    Notation(
        re.compile(
            r"\s*(?:\[TOOL_CALLS\])?\s*(?P<name>[\w.:-]+)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?=\{)"
        ),
        JsonBody,
    ),
)
DEEPSEEK: Final = (
    Notation(
        re.compile(
            r"[\s`]*(?:<｜tool▁call▁end｜>)?\s*<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<name>[^\s<{]+)\s*"
            r"(?:<｜tool▁sep｜>)?\s*(?:```json)?\s*(?=\{)"
        ),
        JsonBody,
    ),
)
KIMI: Final = (
    Notation(
        re.compile(
            r"\s*(?:<\|tool_call_end\|>)?\s*<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.-]+)(?::\d+)?\s*"
            r"<\|tool_call_argument_begin\|>\s*(?=\{)"
        ),
        JsonBody,
    ),
)
FUNCTIONARY: Final = (Notation(re.compile(r"(?P<name>[\w.:-]+)>\s*(?=\{)"), JsonBody),)
HARMONY: Final = (
    Notation(
        re.compile(r"\s*(?:to=functions\.)?(?P<name>[\w.:-]{1,128})[^{}]{0,128}<\|message\|>\s*(?=\{)"),
        JsonBody,
    ),
)


def gemma(quote: str) -> tuple[Notation, ...]:
    head = re.compile(r"\s*call:(?P<name>[\w.:-]{1,128})\s*(?=\{)")
    return (Notation(head, partial(GemmaBody, quote=quote)),)


PYTHON: Final = (Notation(re.compile(r"[\s,\[]*(?P<name>[^\W\d][\w.]*)\("), PythonBody),)
TAGGED: Final = (
    *JSON,
    Notation(re.compile(r"\s*<function=(?P<name>[^>\n]{1,128})>"), partial(ElementsBody, elements=QWEN)),
)
GLM: Final = (
    *TAGGED,
    Notation(
        re.compile(r"\s*(?P<name>[\w.:-]{1,128})\s*(?=<arg_key>)"),
        partial(ElementsBody, elements=GLM_ELEMENTS),
    ),
)
INVOKED: Final = (
    Notation(
        re.compile(r'\s*<invoke name="(?P<name>[^"\n]{1,128})">'), partial(ElementsBody, elements=INVOKE)
    ),
)
_PARAM: Final = replace(PARAM, argument=re.compile(r'<param name="(?P<name>[^"\n]{1,128})">'))
MINICPM: Final = (
    Notation(
        re.compile(r'(?P<name>[^"\n]{1,128})">'),
        partial(ElementsBody, elements=_PARAM, wrap=("<![CDATA[", "]]>")),
    ),
)
