"""Engines by name."""

import sys

import pytest

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.registry import loader


def test_an_image_without_an_engines_library_says_so(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("slm_runtime.engine.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LoadError, match="no engine OnnxRuntime: the module onnxruntime isn't installed"):
        loader("OnnxRuntime")
