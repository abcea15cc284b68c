"""What templates can't do, found out by asking them, and what is done about it.

Each adaptation has a probe: a conversation, and words that its prompt must hold. Where a template loses some
or refuses, and doesn't once the conversation is adapted, it gets all its conversations adapted like that.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any, Final

import msgspec

from slm_runtime.templates.messages import ChatMessage, Messages

Adapt = Callable[[Messages], Messages]

_ID_LENGTH: Final = 9


@dataclass(frozen=True)
class Adaptation:
    adapt: Adapt
    probe: Messages
    words: tuple[str, ...]


def join_systems(messages: Messages) -> Messages:
    """System messages side by side as one."""
    return _joined(messages, {"system"})


def fold_systems(messages: Messages) -> Messages:
    """Put system messages at the head of the user message that follows them."""
    folded: Messages = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            folded.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            folded.append(message)
    if waiting:
        folded.append({"role": "user", "content": "\n\n".join(waiting)})
    return folded


def fold_later_systems(messages: Messages) -> Messages:
    """Likewise, but for those at the head of the conversation."""
    head = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return messages[:head] + fold_systems(messages[head:])


def results_as_text(messages: Messages) -> Messages:
    """What tools said, said by the user."""
    return [
        {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
        if message["role"] == "tool"
        else message
        for message in messages
    ]


def calls_as_text(messages: Messages) -> Messages:
    """Calls as the text that a model without a notation of its own is taught to write."""
    return _written(
        messages, lambda calls: "\n".join(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in calls)
    )


def calls_as_phi_writes_them(messages: Messages) -> Messages:
    return _written(messages, lambda calls: f"<|tool_call|>{_json(calls)}<|/tool_call|>")


def calls_as_granite_writes_them(messages: Messages) -> Messages:
    return _written(messages, lambda calls: f"<|tool_call|>{_json(calls)}")


def calls_as_lfm_writes_them(messages: Messages) -> Messages:
    """As Python does."""

    def one(call: dict[str, Any]) -> str:
        arguments = call["arguments"].items()
        return f"{call['name']}({', '.join(f'{name}={_literal(value)}' for name, value in arguments)})"

    return _written(
        messages, lambda calls: f"<|tool_call_start|>[{', '.join(map(one, calls))}]<|tool_call_end|>"
    )


_WRITERS: Final = {
    "<|tool_list_start|>": calls_as_lfm_writes_them,
    '"List of tools: ["': calls_as_lfm_writes_them,
    "<|tool_call|>": calls_as_granite_writes_them,
}
"""Families whose templates may show no calls, by what these say of tools."""


def in_own_words(adapt: Adapt, template: str) -> Adapt:
    """Of calls as text: as the template's family writes them itself, where it is known."""
    if adapt is not calls_as_text:
        return adapt
    return next((writer for sign, writer in _WRITERS.items() if sign in template), adapt)


def text_arguments(messages: Messages) -> Messages:
    """Some templates (DeepSeek's) concatenate the arguments as text."""

    def as_text(call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        return {**call, "function": {**function, "arguments": _json(function["arguments"])}}

    return [
        {**message, "tool_calls": [as_text(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def one_call_each(messages: Messages) -> Messages:
    """Calls side by side one after another, each followed by its result."""
    single: Messages = []
    for message, results in _with_results(messages):
        calls = message.get("tool_calls") or []
        left = OrderedDict(enumerate(results))
        of_id: defaultdict[str | None, deque[int]] = defaultdict(deque)
        for place, result in enumerate(results):
            of_id[result.get("tool_call_id")].append(place)
        for index, call in enumerate(calls):
            content = "" if index else message["content"]
            single.append({**message, "content": content, "tool_calls": [call]})
            if index < len(calls) - 1 and left:
                own = of_id[call.get("id")]
                while own and own[0] not in left:
                    own.popleft()
                single.append(left.pop(own[0] if own else next(iter(left))))
        single += [*([] if calls else [message]), *left.values()]
    return single


def short_ids(messages: Messages) -> Messages:
    """Mistral's templates take ids of nine letters and digits; Ollama's clients send none at all."""
    told: Messages = []
    for message, results in _with_results(messages):
        calls = [
            {**call, "id": _short(call.get("id") or f"{len(told)} {index}")}
            for index, call in enumerate(message.get("tool_calls") or [])
        ]
        told.append({**message, "tool_calls": calls} if calls else message)
        made = [call["id"] for call in calls] or [_short("")]
        told += [
            {**result, "tool_call_id": _short(result.get("tool_call_id") or made[min(index, len(made) - 1)])}
            for index, result in enumerate(results)
        ]
    return told


def reasoning_as_thinking(messages: Messages) -> Messages:
    """gpt-oss' and LFM2's templates call it `thinking`; the first takes no text beside it where there are calls."""

    def named(message: ChatMessage) -> ChatMessage:
        told = {**message, "thinking": message["reasoning_content"]}
        return {**told, "content": ""} if message.get("tool_calls") else told

    return [named(message) if message.get("reasoning_content") else message for message in messages]


def join_turns(messages: Messages) -> Messages:
    """What would be two turns of one speaker, as one."""
    return _joined(messages, {"user", "assistant"})


def _with_results(messages: Messages) -> Iterator[tuple[ChatMessage, Messages]]:
    """Each message with the tools' results that follow it."""
    index = 0
    while index < len(messages):
        end = index + 1
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        yield messages[index], messages[index + 1 : end]
        index = end


def _joined(messages: Messages, roles: set[str]) -> Messages:
    def turn(numbered: tuple[int, ChatMessage]) -> int | str:
        number, message = numbered
        joins = message["role"] in roles and not message.get("tool_calls")
        return message["role"] if joins else number

    joined: Messages = []
    for _, numbered in groupby(enumerate(messages), turn):
        first, *others = [message for _, message in numbered]
        contents = [message["content"] for message in (first, *others)]
        joined.append({**first, "content": "\n\n".join(contents)} if others else first)
    return joined


def _written(messages: Messages, text_of: Callable[[list[dict[str, Any]]], str]) -> Messages:
    def as_text(message: ChatMessage) -> ChatMessage:
        text = text_of([call["function"] for call in message["tool_calls"]])
        content = f"{message['content']}\n{text}" if message["content"] else text
        others = {key: value for key, value in message.items() if key != "tool_calls"}
        return {**others, "content": content}

    return [as_text(message) if message.get("tool_calls") else message for message in messages]


def _short(call_id: str) -> str:
    if len(call_id) == _ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return sha256(call_id.encode(errors="replace")).hexdigest()[:_ID_LENGTH]


def _literal(value: Any) -> str:
    return _json(value) if isinstance(value, str) else repr(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _said(role: str, content: str, **more: str) -> ChatMessage:
    return {"role": role, "content": content, **more}


def _called(*ids: str) -> ChatMessage:
    """A turn of calls, each with its id as its argument."""
    calls = [
        {"id": one, "type": "function", "function": {"name": "f", "arguments": {"a": f"for{one}"}}}
        for one in ids
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


_USER: Final = _said("user", "asked")
_THOUGHT: Final = {"reasoning_content": "thought"}
_ANSWERED: Final = [_USER, _called("call00001"), _said("tool", "found", tool_call_id="call00001")]

ADAPTATIONS: Final = (
    Adaptation(
        join_systems, [_said("system", "one"), _said("system", "two"), _USER], ("one", "two", "asked")
    ),
    Adaptation(fold_systems, [_said("system", "one"), _USER], ("one", "asked")),
    Adaptation(
        fold_later_systems,
        [
            _said("system", "one"),
            _USER,
            _said("assistant", "said"),
            _said("system", "two"),
            _said("user", "more"),
        ],
        ("one", "two", "more"),
    ),
    Adaptation(results_as_text, _ANSWERED, ("found",)),
    Adaptation(text_arguments, _ANSWERED, ("forcall00001", "found")),
    Adaptation(calls_as_text, _ANSWERED, ("forcall00001", "found")),
    Adaptation(
        one_call_each,
        [
            _USER,
            _called("call00001", "call00002"),
            _said("tool", "found", tool_call_id="call00001"),
            _said("tool", "seen", tool_call_id="call00002"),
        ],
        ("forcall00001", "forcall00002", "found", "seen"),
    ),
    Adaptation(
        short_ids,
        [
            _USER,
            _called("call_0001"),
            _said("tool", "found", tool_call_id="call_0001"),
            _called("call_000002"),
            _said("tool", "seen"),
        ],
        ("found", "seen"),
    ),
    Adaptation(
        reasoning_as_thinking,
        [
            _USER,
            {**_called("call00001"), **_THOUGHT},
            _said("tool", "found", tool_call_id="call00001"),
        ],
        ("thought", "forcall00001", "found"),
    ),
    Adaptation(
        join_turns,
        [_USER, _said("user", "more"), _said("assistant", "said"), _said("assistant", "told"), _USER],
        ("asked", "more", "said", "told"),
    ),
)
"""In the order in which they are tried, and applied."""
