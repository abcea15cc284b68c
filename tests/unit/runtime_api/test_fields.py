"""The tables of fields against the vendor's own client, and against the types that do the work."""

import msgspec
import pytest
from openai.types import EmbeddingCreateParams
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params

from slm_runtime.api.document import openapi
from slm_runtime.api.openai import chat, completions, embeddings, fields, responses
from slm_runtime.api.openai.fields import Use
from slm_runtime.api.routes import OPERATIONS

TABLES = [
    (fields.CHAT, chat.ChatRequest, chat_params.CompletionCreateParamsBase),
    (fields.COMPLETION, completions.CompletionRequest, completion_params.CompletionCreateParamsBase),
    (fields.RESPONSE, responses.ResponseRequest, response_params.ResponseCreateParamsBase),
    (fields.EMBEDDING, embeddings.EmbeddingRequest, EmbeddingCreateParams),
]


@pytest.mark.parametrize(("table", "request_type", "vendor"), TABLES)
def test_every_field_of_todays_schema_is_listed(
    table: fields.Fields, request_type: type[msgspec.Struct], vendor: type
) -> None:
    ours = {name for name, (use, _) in table.items() if use not in {Use.EXTENSION, Use.FOREIGN}}
    assert ours - {"stream"} == set(vendor.__annotations__)


@pytest.mark.parametrize(("table", "request_type", "vendor"), TABLES)
def test_what_is_honoured_is_what_the_code_reads(
    table: fields.Fields, request_type: type[msgspec.Struct], vendor: type
) -> None:
    honoured = {name for name, (use, _) in table.items() if use in {Use.HONOURED, Use.EXTENSION}}
    assert honoured == set(request_type.__struct_fields__)


@pytest.mark.parametrize(("table", "request_type", "vendor"), TABLES)
def test_what_is_not_honoured_says_why(
    table: fields.Fields, request_type: type[msgspec.Struct], vendor: type
) -> None:
    assert all(why for use, why in table.values() if use in {Use.NO_EFFECT, Use.FOREIGN, Use.REFUSED})


@pytest.mark.parametrize(("table", "request_type", "vendor"), TABLES)
def test_the_openapi_document_has_every_field_that_is_taken(
    table: fields.Fields, request_type: type[msgspec.Struct], vendor: type
) -> None:
    described = openapi(OPERATIONS)["components"]["schemas"][request_type.__name__]
    taken = {name for name, (use, _) in table.items() if use is not Use.REFUSED}
    assert described["properties"].keys() == taken
