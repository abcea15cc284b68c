"""The models that are measured: SmolLM2-135M as shipped (Q4_1), and requantised to Q4_0, where the kernels are fastest."""

from pathlib import Path

from tests.cluster import cache
from tests.support.models import smollm2


def shipped() -> Path:
    return smollm2()


def requantised() -> Path:
    """Q4_0, whose weights llama.cpp repacks for the CPU at load: there serving shows, not the format."""

    def build(folder: Path) -> None:
        import llama_cpp  # the library is loaded by this step only

        from slm_runtime.engine.llama_cpp.backends import load_backends

        load_backends()
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
        parameters.allow_requantize = True
        target = folder / "smollm2-135m-q4_0.gguf"
        code = llama_cpp.llama_model_quantize(str(shipped()).encode(), str(target).encode(), parameters)
        if code != 0:
            raise SystemExit(f"llama_model_quantize ended with {code}")

    folder = cache.built("models", "smollm2-q4_0", {"from": shipped().name}, build, note="seconds, once")
    return next(folder.glob("*.gguf"))


def both() -> list[tuple[str, Path]]:
    """Each with the label under which its figures are kept."""
    return [("shipped", shipped()), ("q4_0", requantised())]
