"""docs/api.md against the code: its tables are the code's."""

from pathlib import Path

from slm_runtime.api.openai import fields
from slm_runtime.api.routes import OPERATIONS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
TABLES = {
    "/v1/chat/completions": fields.CHAT,
    "/v1/completions": fields.COMPLETION,
    "/v1/responses": fields.RESPONSE,
    "/v1/embeddings": fields.EMBEDDING,
}


def routes_table() -> str:
    rows = [f"| `{o.method} {o.path.replace('{rest}', 'NAME')}` | {o.summary} |" for o in OPERATIONS]
    return "\n".join(["| route | |", "|---|---|", *rows])


def fields_table(table: fields.Fields) -> str:
    rows = [f"| `{name}` | {use.value} | {note} |" for name, (use, note) in table.items()]
    return "\n".join(["| field | | |", "|---|---|---|", *rows])


def test_the_page_lists_every_route() -> None:
    assert routes_table() in PAGE


def test_the_page_lists_every_field() -> None:
    for table in TABLES.values():
        assert fields_table(table) in PAGE
