"""What the ONNX engine makes of folders: those that it runs, and why it refuses others."""

import json
import shutil

import numpy as np
import pytest
from onnx import TensorProto, helper

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import AdapterFile, EngineConfig
from slm_runtime.engine.onnx.load import load
from slm_runtime.engine.protocol import Output, Pooling
from tests.runtime.engine.conforming import span
from tests.support.onnx import MARKS, VOCABULARY, write_tiny_onnx

pytestmark = pytest.mark.runtime


def config(path, **fields):
    return EngineConfig(**{"model_path": str(path), "context_length": 256, "threads": 1, **fields})


def refusal(path, **fields):
    with pytest.raises(LoadError) as refused:
        load(config(path, **fields))
    return refused.value.failure.reason, refused.value.failure.message


def edit(path, **fields):
    document = json.loads(path.read_text())
    document["model"] |= fields
    path.write_text(json.dumps(document))


def test_it_says_what_it_runs(tmp_path):
    engine, info = load(config(write_tiny_onnx(tmp_path), parallel=3))
    assert info.engine == "onnxruntime"
    assert (info.context_length, info.trained_context_length) == (256, 2048)
    assert info.kv_cells == 3 * 256
    assert info.memory.kv_cache == 3 * 256 * 2 * 2 * 32 * 4
    assert info.memory.weights >= (tmp_path / "model.onnx.data").stat().st_size
    assert info.vocab_size == engine.vocabulary.size == VOCABULARY
    assert "<|im_start|>" in info.chat_templates["default"]
    assert (info.bos_text, info.eos_text, info.add_bos) == (MARKS[0], MARKS[2], False)
    assert not info.embeds
    assert len(engine.vocabulary.end_tokens) == 2


def test_tokens_of_the_graph_that_the_tokenizer_lacks_are_nothing_to_see(tmp_path):
    engine, _ = load(config(write_tiny_onnx(tmp_path)))
    assert engine.vocabulary.is_special(VOCABULARY - 1)
    assert engine.vocabulary.piece(VOCABULARY - 1, special=True) == b""


def test_the_tokenizer_says_what_stands_before_a_prompt(tmp_path):
    engine, info = load(config(write_tiny_onnx(tmp_path, bos=True)))
    assert info.add_bos
    bos = engine.vocabulary.bos
    assert engine.vocabulary.add_special([5]) == [bos, 5]
    assert engine.vocabulary.add_special([bos, 5]) == [bos, 5]
    assert engine.vocabulary.add_special_to_pair([5], [6]) == [bos, 5, bos, 6]


def test_keys_and_values_are_of_the_graphs_numbers(tmp_path):
    path = write_tiny_onnx(tmp_path / "whole")
    whole, _ = load(config(path))
    half, info = load(config(write_tiny_onnx(tmp_path / "half", element=TensorProto.FLOAT16)))
    assert info.memory.kv_cache == 4 * 256 * 2 * 2 * 32 * 2
    tokens = list(range(20, 60))
    expected, rows = (engine.step([span(0, 0, tokens)])[0] for engine in (whole, half))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=0.1)


def test_a_graph_that_gives_hidden_states_makes_embeddings(tmp_path):
    engine, info = load(config(write_tiny_onnx(tmp_path, hidden_states=True)))
    assert info.embeds
    assert (info.embedding_length, engine.capabilities.pooling) == (64, Pooling.MEAN)
    states = engine.step([span(0, 0, [20, 21, 22], rows=3)], Output.HIDDEN_STATES)
    assert states.shape == (3, 64)
    assert engine.step([span(1, 0, [20, 21, 22])]).shape == (1, VOCABULARY)


def test_a_bound_of_the_store_is_kept_by_fewer_rows(tmp_path):
    path = write_tiny_onnx(tmp_path)
    for cells, rows in ((600, 2), (100, 1), (5000, 4)):
        engine, info = load(config(path, kv_cells=cells))
        assert (info.parallel, engine.capabilities.rows, info.kv_cells) == (rows, rows, rows * 256)


def behind_another_node(model):
    """Logits of all tokens, made in a way that isn't known here."""
    node = next(each for each in model.graph.node if each.output[0] == "logits")
    node.output[0] = "scores"
    model.graph.node.append(helper.make_node("Identity", ["scores"], ["logits"]))


def test_logits_of_some_tokens_are_as_those_of_all(tmp_path):
    """Where the graph can be changed so that it gives no others, and where it can't."""
    some, _ = load(config(write_tiny_onnx(tmp_path / "some")))
    all_of_them, _ = load(config(write_tiny_onnx(tmp_path / "all", change=behind_another_node)))
    tokens = list(range(20, 60))
    given = []
    for engine in (some, all_of_them):
        prompts = [engine.step([span(n, 0, tokens[: 9 + n], rows=n)]).copy() for n in range(3)]
        singles = engine.step([span(n, 9 + n, tokens[:1], rows=n % 2) for n in range(3)])
        given.append(np.concatenate([*prompts, singles]))
    assert [engine._signature.chooses for engine in (some, all_of_them)] == [True, False]
    assert given[0].shape == (4, VOCABULARY)
    np.testing.assert_allclose(given[0], given[1], atol=1e-4)


def test_a_folder_of_links_is_read_where_the_files_lie(tmp_path):
    path = write_tiny_onnx(tmp_path / "there")
    (tmp_path / "here").mkdir()
    for file in path.parent.iterdir():
        (tmp_path / "here" / file.name).symlink_to(file)
    load(config(tmp_path / "here" / "model.onnx"))


def place_of_weights(where):
    def change(model):
        for weight in model.graph.initializer:
            for entry in weight.external_data:
                if entry.key == "location":
                    entry.value = where

    return change


def custom(model):
    node = next(each for each in model.graph.node if each.op_type == "Sigmoid")
    node.op_type, node.domain = "Fancy", "my.own"
    model.opset_import.append(helper.make_opsetid("my.own", 1))


def int4_blocks_of_24(model):
    node = next(each for each in model.graph.node if each.output[0] == "logits")
    node.CopyFrom(
        helper.make_node(
            "MatMulNBits",
            [node.input[0], "packed", "scales"],
            ["logits"],
            domain="com.microsoft",
            K=64,
            N=VOCABULARY,
            bits=4,
            block_size=24,
        )
    )
    model.graph.initializer.extend(
        [
            helper.make_tensor(
                "packed", TensorProto.UINT8, [VOCABULARY, 3, 12], bytes(VOCABULARY * 36), raw=True
            ),
            helper.make_tensor(
                "scales", TensorProto.FLOAT, [VOCABULARY * 3], bytes(VOCABULARY * 12), raw=True
            ),
        ]
    )


def another_input(model):
    model.graph.input.append(
        helper.make_tensor_value_info("block_table", TensorProto.INT32, ["batch", "pages"])
    )


def growing(model):
    """Keys and values that are written to a longer tensor each time: of other names, and of another length."""
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name.startswith("present."):
                node.output[place] = f"new.{name}"
    for output in list(model.graph.output):
        if output.name.startswith("present."):
            model.graph.node.append(
                helper.make_node(
                    "Concat", [f"new.{output.name}", f"new.{output.name}"], [output.name], axis=2
                )
            )


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            place_of_weights("elsewhere.data"),
            "InvalidModel",
            "weights are missing: there is no .*elsewhere.data",
        ),
        (place_of_weights("../model.onnx.data"), "InvalidModel", "outside its folder"),
        (place_of_weights("/etc/hostname"), "InvalidModel", "outside its folder"),
        (custom, "UnsupportedArchitecture", "operator that onnxruntime doesn't have: my.own:Fancy"),
        (int4_blocks_of_24, "UnsupportedArchitecture", "power-of-two block sizes"),
        (another_input, "UnsupportedArchitecture", "it wants block_table"),
        (growing, "UnsupportedArchitecture", "can't be kept in place"),
    ],
)
def test_a_graph_that_cant_be_run_is_refused_by_name(tmp_path, change, reason, words):
    path = write_tiny_onnx(tmp_path / "model", change=change)
    shutil.copy(path.with_name("model.onnx.data"), tmp_path)
    found, message = refusal(path)
    assert found == reason
    assert message.startswith("model.onnx can't be ")
    with pytest.raises(LoadError, match=words):
        load(config(path))


def test_weights_behind_a_link_out_of_the_folder_arent_read(tmp_path):
    path = write_tiny_onnx(tmp_path / "model")
    weights = path.with_name("model.onnx.data")
    shutil.move(weights, tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert "outside its folder" in refusal(path)[1]


def test_weights_that_are_cut_off_are_said_to_be(tmp_path):
    path = write_tiny_onnx(tmp_path)
    weights = path.with_name("model.onnx.data")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert refusal(path)[0] == "InvalidModel"
    assert "cut off" in refusal(path)[1]


def test_a_tokenizer_that_isnt_the_graphs_is_refused(tmp_path):
    path = write_tiny_onnx(tmp_path)
    tokenizer = path.with_name("tokenizer.json")
    document = json.loads(tokenizer.read_text())
    document["added_tokens"] += [
        {**document["added_tokens"][0], "id": number, "content": f"<{number}>"} for number in range(270, 400)
    ]
    tokenizer.write_text(json.dumps(document))
    assert "don't belong to each other" in refusal(path)[1]
    tokenizer.write_text("{}")
    assert refusal(path)[0] == "InvalidModel"
    tokenizer.unlink()
    assert "no tokenizer.json" in refusal(path)[1]


def test_a_configuration_that_is_wrong_is_named(tmp_path):
    path = write_tiny_onnx(tmp_path)
    genai = path.with_name("genai_config.json")
    edit(genai, vocab_size=7)
    assert "320 numbers wide, but genai_config.json counts 7 tokens" in refusal(path)[1]
    genai.write_text('{"model": {"type": "llama"}}')
    assert "genai_config.json can't be read" in refusal(path)[1]
    genai.unlink()
    assert "no genai_config.json" in refusal(path)[1]


def test_what_is_no_graph_or_not_there_is_said_to_be(tmp_path):
    path = write_tiny_onnx(tmp_path)
    path.write_bytes(b"no graph at all")
    assert refusal(path) == ("InvalidModel", "model.onnx can't be loaded: it is no ONNX graph")
    path.unlink()
    assert "no graph" in refusal(path)[1]


def test_companions_that_no_graph_takes_are_refused(tmp_path):
    path = write_tiny_onnx(tmp_path)
    assert "LoRA" in refusal(path, adapters=[AdapterFile("a.gguf")])[1]
    assert "projector" in refusal(path, projector="mmproj.gguf")[1]
