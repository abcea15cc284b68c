"""The real engine process around the deterministic engine. What a prompt says makes it misbehave.

`!poison` kills the process while it is being read, `!crash` in the step that takes the prompt in; `!fault` ends it
with a reason. What begins with `!gate FOLDER ` makes a file `reached` there, and is read once there is one `open`.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from slm_runtime.engine.loading import EngineConfig, Loaded, LoadFailed, MemoryBreakdown
from slm_runtime.engine.process import main
from slm_runtime.engine.protocol import Capabilities, Engine, EngineFault, Output, Rows, Span
from tests.unit.runtime_engine.playing import VOCABULARY, Letters, PlayedEngine


class Vocabulary(Letters):
    """Letters, and two words that do harm."""

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        if text == "!poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith("!gate "):
            gate = Path(text.split()[1])
            (gate / "reached").touch()
            while not (gate / "open").exists():
                time.sleep(0.005)
        return {"!crash": [64], "!fault": [65], "": []}.get(text) or super().tokenize(
            text, parse_special=parse_special
        )


class Fragile(PlayedEngine):
    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(capabilities)
        self.vocabulary = Vocabulary()

    def step(self, spans: Sequence[Span], output: Output = Output.LOGITS) -> Rows:
        prompts = [token for span in spans for token in span.tokens]
        if 64 in prompts:
            os.kill(os.getpid(), signal.SIGKILL)
        if 65 in prompts:
            raise EngineFault("the accelerator is gone")
        return super().step(spans, output)


def load(config: EngineConfig) -> tuple[Engine, Loaded] | LoadFailed:
    if config.model_path == "wrong":
        return LoadFailed("InvalidModel", "wrong is no model")
    if config.model_path.startswith("die once "):
        with contextlib.suppress(FileNotFoundError):
            (Path(config.model_path.split()[2]) / "die").unlink()
            os.kill(os.getpid(), signal.SIGSEGV)
    if config.model_path == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    context = config.context_length or 500
    engine = Fragile(
        Capabilities(
            context_length=context,
            rows=config.parallel,
            sequences=16,
            step_tokens=64,
            cells=context * 4,
            embedding_tokens=16,
            scored_tokens=16,
        )
    )
    info = Loaded(
        engine="played", context_length=context, trained_context_length=context, parallel=config.parallel,
        kv_cells=context * 4, vocab_size=VOCABULARY, embedding_length=0, bos=1, eos=2, bos_text="", eos_text="",
        add_bos=True, chat_templates={}, description="letters", device="none", provider="cpu", variant="none", threads=1,
        layers_offloaded=0, layers_total=0, flash_attention=False, memory=MemoryBreakdown(0, 0, 0, 0), load_seconds=0,
    )  # fmt: skip
    return engine, info


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), load))
