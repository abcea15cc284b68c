"""What can't be converted is refused by name, and nothing is left of what wasn't finished."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from slm_runtime.__main__ import main
from slm_runtime.converting import data
from slm_runtime.converting.convert import convert
from slm_runtime.converting.gguf_file import open_gguf
from slm_runtime.converting.graph import Precision
from slm_runtime.converting.hf_folder import open_folder
from slm_runtime.errors import (
    InvalidModel,
    OutOfSpace,
    SourceNotFound,
    UnsupportedArchitecture,
    UnsupportedQuantization,
)
from tests.support.decoders import TinyDecoder, write_safetensors
from tests.support.gguf import write_tiny_gguf


@pytest.fixture
def gguf(tmp_path):
    return write_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def folder(tmp_path):
    return TinyDecoder("llama").write_folder(tmp_path / "hf", "{}", 300)


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_an_architecture_that_is_not_known(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", sliding_window=64)
    with pytest.raises(UnsupportedArchitecture, match="'gemma3'"):
        open_gguf(path).decoder()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "'yarn'"),
        ({"use_sliding_window": True}, "sliding windows"),
    ],
)
def test_a_configuration_that_is_not_exported(folder, values, said):
    with pytest.raises(UnsupportedArchitecture, match=said):
        open_folder(changed(folder, **values)).decoder()


@pytest.mark.parametrize(
    "values", [{"hidden_size": "x"}, {"num_attention_heads": 0}, {"rope_scaling": {"type": "linear"}}]
)
def test_a_configuration_that_makes_no_sense(folder, values):
    with pytest.raises(InvalidModel):
        open_folder(changed(folder, **values)).decoder()


def test_a_tensor_that_nobody_asked_for(folder):
    extra = {"model.layers.0.mlp.secret.weight": np.zeros((2, 2), np.float32)}
    write_safetensors(folder / "model-00003-of-00002.safetensors", extra)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UnsupportedArchitecture, match=r"mlp\.secret\.weight"):
        open_folder(folder).decoder()


def test_weights_that_are_quantized_already(folder):
    with pytest.raises(UnsupportedQuantization, match="quantization_config"):
        open_folder(changed(folder, quantization_config={"bits": 4}))


def test_a_format_that_is_not_read(folder):
    write_safetensors(folder / "model-00001-of-00002.safetensors", {"a": np.zeros(4, np.int8)}, "I8")
    with pytest.raises(UnsupportedQuantization, match="format I8"):
        open_folder(folder)


@pytest.mark.parametrize("left", [0, 4, 40, -1])
def test_a_safetensors_file_that_is_cut_off(folder, left):
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InvalidModel):
        open_folder(folder)


def test_a_file_that_the_index_names_is_missing(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SourceNotFound, match="model-00002"):
        open_folder(folder)


def test_a_tensor_of_another_shape(folder):
    with pytest.raises(InvalidModel, match="50 by 96"):
        open_folder(changed(folder, vocab_size=50)).decoder()


def test_a_gguf_file_that_is_cut_off(gguf):
    gguf.write_bytes(gguf.read_bytes()[:-1])
    with pytest.raises(InvalidModel, match="cut off"):
        open_gguf(gguf)


def test_nothing_is_left_where_the_volume_is_full(gguf, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(data.DataFile, "add", full)
    with pytest.raises(OutOfSpace):
        convert(open_gguf(gguf), tmp_path / "out" / "onnx", Precision.INT4)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_left_where_it_is_cancelled(gguf, tmp_path):
    script = (
        "import os, signal, sys; from slm_runtime.__main__ import main;"
        "from slm_runtime.converting.data import DataFile;"
        "DataFile.add = lambda *_: os.kill(os.getpid(), signal.SIGTERM);"
        "sys.exit(main(sys.argv[1:]))"
    )
    target = tmp_path / "out" / "onnx"
    ended = subprocess.run(
        [sys.executable, "-c", script, "convert", str(gguf), str(target)], capture_output=True, check=False
    )
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert list(target.parent.iterdir()) == []


def test_what_is_there_stays_there(gguf, tmp_path, capsys):
    target = tmp_path / "onnx"
    target.mkdir()
    (target / "mine").write_text("mine")
    assert main(["convert", str(gguf), str(target)]) != 0
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_without_the_package_it_says_what_to_install(gguf, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("slm_runtime.converting")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["convert", str(gguf), str(tmp_path / "onnx")]) != 0
    assert "slm-operator[convert]" in capsys.readouterr().err
