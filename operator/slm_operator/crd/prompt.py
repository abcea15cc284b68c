"""`spec.model.prompt`: what a Modelfile says of a model, for requests that don't say it themselves."""

from typing import Annotated, Literal

from pydantic import Field

from slm_operator.crd.base import ApiModel, rule, rules


class Parameters(ApiModel):
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """How freely tokens are drawn; 0 always takes the likeliest."""
    top_k: Annotated[int, Field(ge=0, le=1000000)] | None = None
    """Draws from the so many likeliest tokens; 0: from all."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draws from the likeliest tokens that together have this probability."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Leaves out tokens less likely than this part of the likeliest one's probability."""
    typical_p: Annotated[float, Field(ge=0.01, le=1)] | None = None
    """Draws from the tokens whose surprise is nearest to the expected one; 1: off."""
    repeat_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    """Makes tokens that were used less likely; 1: off."""
    repeat_last_n: Annotated[int, Field(ge=-1, le=1048576)] | None = None
    """Tokens that the penalties look back on; -1: all."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Taken from a token's score for each time that it was used."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Taken from a token's score once it was used."""
    seed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    """The same request with the same seed gives the same text."""
    max_tokens: Annotated[int, Field(ge=1, le=1048576)] | None = None
    """Tokens that an answer may have."""


class Message(ApiModel):
    role: Literal["user", "assistant"]
    """Whose turn it is."""
    content: Annotated[str, Field(min_length=1, max_length=8192)]
    """What was said."""


class Prompt(ApiModel):
    system: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """System message for requests that bring none."""
    template: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=16384,
                json_schema_extra=rules(
                    rule(
                        "self.contains('messages')",
                        "write a Jinja chat template that renders the list `messages`, as in a model's "
                        "tokenizer_config.json; `kubectl slm create` makes one of a Modelfile's Go template",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """Chat template (Jinja), in place of the model's own."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Texts that end an answer, for requests that name none."""
    parameters: Parameters | None = None
    """Sampling parameters for requests that don't say; absent: the defaults of the API that is spoken."""
    messages: Annotated[
        tuple[Message, ...],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Turns that stand before every conversation, after its system message: examples of how to answer."""
