"""What lies beside a graph: how its inputs are named, what its tokens mean, how a chat is written down."""

from glob import escape
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from slm_runtime.engine.failing import LoadError

_Document = TypeVar("_Document")


class Inputs(msgspec.Struct):
    """Names; `%d` stands for a block's number."""

    input_ids: str = "input_ids"
    attention_mask: str = "attention_mask"
    position_ids: str = "position_ids"
    past_key_names: str = "past_key_values.%d.key"
    past_value_names: str = "past_key_values.%d.value"


class Outputs(msgspec.Struct):
    logits: str = "logits"
    hidden_states: str = "hidden_states"
    present_key_names: str = "present.%d.key"
    present_value_names: str = "present.%d.value"


class Decoder(msgspec.Struct):
    head_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int = 0
    inputs: Inputs = msgspec.field(default_factory=Inputs)
    outputs: Outputs = msgspec.field(default_factory=Outputs)


class Model(msgspec.Struct):
    type: str
    context_length: int
    vocab_size: int
    decoder: Decoder
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None


class GenaiConfig(msgspec.Struct):
    """`genai_config.json`, as onnxruntime-genai's builder writes it."""

    model: Model


class EncoderConfig(msgspec.Struct):
    """`config.json` of a model that reads texts whole, as transformers writes it."""

    model_type: str = ""
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None


class SentenceConfig(msgspec.Struct):
    """`sentence_bert_config.json`, as sentence-transformers writes it."""

    max_seq_length: int | None = None


class Module(msgspec.Struct):
    """An entry of `modules.json`: what a text goes through to become a vector."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        return self.type.rpartition(".")[2]


class PoolingConfig(msgspec.Struct):
    """`config.json` of the module that makes one vector of those of the tokens."""

    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_lasttoken: bool = False


class AddedText(msgspec.Struct):
    content: str


Text = str | AddedText | None
"""A special token, as it is written."""


class NamedTemplate(msgspec.Struct):
    name: str
    template: str


class TokenizerConfig(msgspec.Struct):
    """`tokenizer_config.json`, as transformers writes it."""

    bos_token: Text = None
    eos_token: Text = None
    chat_template: str | list[NamedTemplate] | None = None


class GenerationConfig(msgspec.Struct):
    """`generation_config.json`, likewise."""

    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None


_TEMPLATES: Final = "additional_chat_templates"


class Folder:
    """Of one model. Whatever is read raises LoadError where it isn't what it should be."""

    def __init__(self, graph: Path) -> None:
        self.graph = graph
        self.path = graph.parent
        # Of sentence-transformers' repositories the graphs are in a folder of their own, and all else is above it.
        self._places = (graph.parent, graph.parent.parent) if graph.parent.name == "onnx" else (graph.parent,)
        if not graph.is_file():
            raise LoadError("InvalidModel", f"there is no graph {graph}")
        self.tokenizer_config = self.optional("tokenizer_config.json", TokenizerConfig)
        self.generation_config = self.optional("generation_config.json", GenerationConfig)

    @property
    def generates(self) -> bool:
        """Whether somebody says how its graph generates."""
        return self.find("genai_config.json") is not None

    def genai_config(self) -> GenaiConfig:
        config = self.read("genai_config.json", GenaiConfig)
        if config is None:
            raise LoadError(
                "InvalidModel",
                f"there is no genai_config.json beside {self.graph.name}, which says what its inputs are: "
                "export the model in the layout of onnxruntime-genai",
            )
        return config

    def graph_bytes(self) -> int:
        """Of the graph, and of the files beside it that are named after it: its weights."""
        return sum(path.stat().st_size for path in self.path.glob(f"{escape(self.graph.name)}*"))

    def tokenizer(self) -> Path:
        path = self.find("tokenizer.json")
        if path is None:
            raise LoadError("InvalidModel", f"there is no tokenizer.json beside {self.graph.name}")
        return path

    def chat_templates(self) -> dict[str, str]:
        """By name; the main one is "default"."""
        named = self.tokenizer_config.chat_template
        found: dict[str, str] = {}
        if isinstance(named, str):
            found["default"] = named
        elif named is not None:
            found |= {each.name: each.template for each in named}
        own = {path.stem: path for path in sorted((self.path / _TEMPLATES).glob("*.jinja"))}
        if (main := self.find("chat_template.jinja")) is not None:
            own["default"] = main
        return found | {name: _text(path) for name, path in own.items()}

    def find(self, name: str) -> Path | None:
        return next((place / name for place in self._places if (place / name).is_file()), None)

    def read(self, name: str, kind: type[_Document]) -> _Document | None:
        """A JSON document of the folder; None: there is none."""
        path = self.find(name)
        if path is None:
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (msgspec.MsgspecError, OSError, UnicodeError, RecursionError) as error:
            raise LoadError("InvalidModel", f"{name} can't be read: {error}") from error

    def optional(self, name: str, kind: type[_Document]) -> _Document:
        found = self.read(name, kind)
        return kind() if found is None else found


def tokens_of(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else ids


def text_of(text: Text) -> str | None:
    return text.content if isinstance(text, AddedText) else text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise LoadError("InvalidModel", f"{path.name} can't be read: {error}") from error
