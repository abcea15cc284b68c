"""Structured output: what the grammar allows next, by llguidance."""

from typing import Any, Final

import llguidance
import msgspec
import numpy as np
from llguidance.gbnf_to_lark import gbnf_to_lark
from numpy.typing import NDArray

from slm_runtime.engine.messages import Constraint
from slm_runtime.engine.protocol import Vocabulary

_ANY_OBJECT: Final = '{"type": "object"}'
_JSON_DEFAULTS: Final = {"whitespace_pattern": r"[ \n\t]{1,16}", "coerce_one_of": True}
"""Blanks enough to indent with: without a bound a small model may write them for ever. One of several is any of them."""
_BEFORE: Final = "\x02"
"""No tokenizer joins it with what follows."""
_MAX_SOURCE: Final = 256 * 1024
"""Characters of a schema, pattern or grammar."""


_MAX_REASON: Final = 300
"""Characters."""


class InvalidConstraint(Exception):
    """The schema, pattern or grammar can't be used; the message says why."""


class _Tokens:
    """The vocabulary in the shape that llguidance reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.eos
        self.bos_token_id = vocabulary.bos
        self.tokens = [vocabulary.piece(token, special=True) for token in range(vocabulary.size)]
        self.special_token_ids = [token for token in range(vocabulary.size) if vocabulary.is_special(token)]

    def __call__(self, text: bytes) -> list[int]:
        """Tokens of text in the middle of other text, where a tokenizer must not put a blank before it."""
        before = self._tokenize(_BEFORE)
        tokens = self._tokenize(_BEFORE + text.decode(errors="replace"))
        return tokens[len(before) :]

    def _tokenize(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, parse_special=False)


class Grammars:
    """Compiles constraints for one vocabulary, which is read ahead or with the first of them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None

    def compile(self, constraint: Constraint) -> "GrammarMatcher":
        """Raises InvalidConstraint."""
        if len(constraint.text) > _MAX_SOURCE:
            raise InvalidConstraint(
                f"a {constraint.kind} of {len(constraint.text)} characters is longer than {_MAX_SOURCE}"
            )
        if constraint.kind == "json_schemas":
            self._check_each(constraint)
        elif constraint.kind == "json_schema_or":
            constraint = self._usable(constraint)
        grammar = _grammar(constraint)
        matcher = llguidance.LLMatcher(self.read_vocabulary(), grammar, log_level=0)
        if matcher.is_error():
            remedy = (
                " (without 'strict' they are ignored)" if "Unimplemented keys" in matcher.get_error() else ""
            )
            raise InvalidConstraint(f"this {constraint.kind} can't be used: {_first_line(matcher)}{remedy}")
        return GrammarMatcher(matcher, self._vocabulary.size)

    def read_vocabulary(self) -> "llguidance.LLTokenizer":
        """Up to a second, in part of which no other thread runs; at once from the second time on."""
        if self._tokenizer is None:
            wrapper = llguidance.TokenizerWrapper(_Tokens(self._vocabulary))
            self._tokenizer = llguidance.LLTokenizer(wrapper, eos_token=sorted(self._vocabulary.end_tokens))
        return self._tokenizer

    def _check_each(self, constraint: Constraint) -> None:
        schemas = msgspec.json.decode(constraint.text, type=list[msgspec.Raw])
        for place, schema in enumerate(schemas, 1):
            try:
                self.compile(Constraint("json_schema", bytes(schema).decode(), constraint.strict))
            except InvalidConstraint as error:
                raise InvalidConstraint(f"{error} (the {place}. of {len(schemas)})") from error

    def _usable(self, constraint: Constraint) -> Constraint:
        """Of the schemas the first must be one that can be followed; the others are, if they can."""
        first, *others = msgspec.json.decode(constraint.text, type=list[msgspec.Raw])
        self.compile(Constraint("json_schema", bytes(first).decode(), constraint.strict))
        usable = [first, *(each for each in others if self._fits(_alternatives([each])))]
        return Constraint("json_schema_or", msgspec.json.encode(usable).decode())

    def _fits(self, grammar: str) -> bool:
        return not llguidance.LLMatcher(self.read_vocabulary(), grammar, log_level=0).is_error()


class GrammarMatcher:
    """One sequence's place in its grammar."""

    def __init__(self, matcher: "llguidance.LLMatcher", size: int) -> None:
        self._matcher = matcher
        self._size = size

    def copy(self) -> "GrammarMatcher":
        """For another choice of the same request."""
        return GrammarMatcher(self._matcher.deep_copy(), self._size)

    def allows(self, token: int) -> bool:
        return bool(self._matcher.validate_tokens([token]) == 1)

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise InvalidConstraint(
                f"the grammar came to a state that it can't leave: {_first_line(self._matcher)}"
            )

    def allowed(self) -> NDArray[np.bool_]:
        words = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.unpackbits(words, bitorder="little")[: self._size].astype(np.bool_)
        if not mask.any():
            raise InvalidConstraint(
                f"the grammar allows nothing more: {_first_line(self._matcher) or 'a dead end'}"
            )
        return mask

    def forced(self) -> list[int]:
        """What has to come next, if there is only one way to go on."""
        return list(self._matcher.compute_ff_tokens())

    @property
    def complete(self) -> bool:
        """Whether nothing may follow any more."""
        return bool(self._matcher.is_stopped())


def _grammar(constraint: Constraint) -> str:
    matcher = llguidance.LLMatcher
    try:
        match constraint.kind:
            case "json_object":
                return str(matcher.grammar_from_json_schema(_ANY_OBJECT, _JSON_DEFAULTS))
            case "json_schema":
                options = {**_JSON_DEFAULTS, "lenient": not constraint.strict}
                return str(matcher.grammar_from_json_schema(constraint.text, options))
            case "json_schemas" | "json_schema_or":
                return _alternatives(msgspec.json.decode(constraint.text, type=list[msgspec.Raw]))
            case "regex":
                return str(matcher.grammar_from_regex(constraint.text))
            case "lark":
                return str(matcher.grammar_from_lark(constraint.text))
            case "gbnf":
                return str(matcher.grammar_from_lark(gbnf_to_lark(constraint.text)))
    except Exception as error:  # the converters raise whatever their parsers stumble over
        raise InvalidConstraint(f"this {constraint.kind} can't be read: {error}") from error


def _alternatives(schemas: list[msgspec.Raw]) -> str:
    """In Lark's notation, where each schema is a document of its own, to which its references refer.

    All have the same options, or llguidance would take the first alternative for good.
    """
    options = {**_JSON_DEFAULTS, "lenient": True}
    rules = []
    for place, schema in enumerate(schemas):
        document = {**msgspec.json.decode(schema, type=dict[str, Any]), "x-guidance": options}
        rules.append(f"schema{place}: %json {msgspec.json.encode(document).decode()}")
    names = " | ".join(f"schema{place}" for place in range(len(schemas)))
    return str(llguidance.LLMatcher.grammar_from_lark("\n".join([f"start: {names}", *rules])))


def _first_line(matcher: "llguidance.LLMatcher") -> str:
    """What is wrong, without the parser's whole state behind it, or the whole source in it."""
    first, *others = str(matcher.get_error()).splitlines() or [""]
    # Of a pattern the parser draws a picture, and says below it what it is of.
    below = next((line for line in others if line.startswith("error: ")), "") if first.endswith(":") else ""
    return f"{first} {below}".strip()[:_MAX_REASON]
