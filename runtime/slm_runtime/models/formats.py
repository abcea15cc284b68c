"""What a model's files are, of whichever format."""

from collections.abc import Collection, Sequence

from slm_contract.report import ModelFacts
from slm_runtime.models.facts import model_facts
from slm_runtime.models.onnx_folder import onnx_facts
from slm_runtime.models.shards import File
from slm_runtime.models.sources.folders import is_graph


def read_facts(files: Sequence[File], adapters: Collection[str] = ()) -> ModelFacts:
    """Say what they are: of a folder of ONNX as :func:`onnx_facts` does, else as :func:`model_facts`."""
    if is_graph(files[0][0]):
        return onnx_facts(files)
    return model_facts(files, adapters)
