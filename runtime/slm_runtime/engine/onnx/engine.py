"""The Engine protocol on onnxruntime: one graph, and a row of its key/value store for each sequence."""

import time
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from slm_contract import context, steps
from slm_runtime.engine.loading import EngineConfig, Loaded, MemoryBreakdown
from slm_runtime.engine.onnx.decoder import Given, signature
from slm_runtime.engine.onnx.folder import Folder
from slm_runtime.engine.onnx.narrowing import ROWS
from slm_runtime.engine.onnx.outputs import Outputs
from slm_runtime.engine.onnx.places import Places, Run
from slm_runtime.engine.onnx.session import Graph
from slm_runtime.engine.onnx.store import Store
from slm_runtime.engine.onnx.vocabulary import OnnxVocabulary
from slm_runtime.engine.protocol import Capabilities, EngineFault, Output, Rows, Span
from slm_runtime.engine.resident import resident_bytes


class OnnxEngine:
    """See Engine. A folder that isn't for it raises LoadError."""

    media = None

    def __init__(self, config: EngineConfig, folder: Folder) -> None:
        began, before = time.monotonic(), resident_bytes()
        model = folder.genai_config().model
        self._graph = graph = Graph(folder.graph, config.threads, model.decoder.outputs.logits)
        # Rearranged for the CPU they take more than in their files.
        weights = max(resident_bytes() - before, folder.graph_bytes())
        self._signature = found = signature(graph, model.decoder, model.vocab_size)
        self.vocabulary = OnnxVocabulary(folder, model, found.logits.width)
        context_length = min(config.context_length or context.DEFAULT, model.context_length)
        rows = _rows(config, context_length)
        step_tokens = max(min(config.batch_size, _prompt_tokens(found.logits)), rows)
        self._places = Places(rows, context_length)
        self._store = Store(graph, found.caches, rows, context_length)
        given = {Output.LOGITS: found.logits, Output.HIDDEN_STATES: found.hidden_states}
        self._outputs = {
            output: Outputs(each, rows + step_tokens) for output, each in given.items() if each is not None
        }
        scored = 0 if found.logits.last_only else step_tokens
        hidden = found.hidden_states is not None and not found.hidden_states.last_only
        self.capabilities = Capabilities(
            context_length=context_length,
            sequences=rows,
            rows=rows,
            step_tokens=step_tokens,
            cells=None,
            embedding_tokens=step_tokens if hidden else 0,
            scored_tokens=scored,
            # On a CPU guesses have to be nearly certain: only where somebody says so.
            draft_rows=scored if config.speculation else 0,
            # The graph's attention takes one sequence's prompt, or a token of each.
            mixed=False,
            prefill_rows=1,
        )
        self._try_out()
        scores = model.decoder.num_attention_heads * step_tokens * context_length * np.float32().itemsize
        self.info = Loaded(
            engine="onnxruntime",
            context_length=context_length,
            trained_context_length=model.context_length,
            parallel=rows,
            kv_cells=rows * context_length,
            vocab_size=self.vocabulary.size,
            embedding_length=found.hidden_states.width if found.hidden_states else model.decoder.hidden_size,
            chat_templates=folder.chat_templates(),
            description=f"{model.type} of {model.decoder.num_hidden_layers} blocks (ONNX)",
            device=f"cpu (onnxruntime {ort.__version__}, {graph.threads} threads)",
            provider="cpu",
            variant=f"onnxruntime {ort.__version__}",
            threads=graph.threads,
            layers_offloaded=0,
            layers_total=model.decoder.num_hidden_layers + 1,
            flash_attention=False,
            memory=MemoryBreakdown(
                weights=weights,
                kv_cache=self._store.bytes,
                compute=sum(outputs.bytes for outputs in self._outputs.values()) + scores,
                resident=resident_bytes(),
            ),
            load_seconds=time.monotonic() - began,
            embeds=hidden,
            **self.vocabulary.described(),
        )

    def step(self, spans: Sequence[Span], output: Output = Output.LOGITS) -> Rows:
        outputs = self._outputs[output]
        given: dict[int, list[int]] = {}
        used = self._take_singles([span for span in spans if len(span.tokens) == 1], outputs, given)
        for span in spans:
            count = len(span.tokens)
            if count > 1:
                row = self._places.row(span.sequence)
                wanted = range(count - span.rows, count)
                tokens = np.array([span.tokens])
                given[span.sequence], used = self._compute(Run(row, row + 1), tokens, outputs, used, wanted)
        for span in spans:
            self._places.lengths[self._places.row(span.sequence)] += len(span.tokens)
        return outputs.rows([row for span in spans for row in given[span.sequence]])

    def copy(self, source: int, target: int, length: int) -> None:
        row = self._places.row(target)
        self._store.copy(self._places.row(source), row, length)
        self._places.lengths[row] = length

    def cut(self, sequence: int, length: int) -> None:
        row = self._places.row(sequence)
        self._places.lengths[row] = min(self._places.lengths[row], length)

    def save(self, sequence: int, snapshot: int) -> None:
        raise TypeError(f"sequence {sequence} can be cut anywhere, so no snapshot {snapshot} is wanted of it")

    def restore(self, snapshot: int, sequence: int) -> None:
        raise TypeError(f"there is no snapshot {snapshot} for sequence {sequence}")

    def forget(self, snapshot: int) -> None:
        raise TypeError(f"there is no snapshot {snapshot}")

    def close(self) -> None:
        """All memory goes with the engine itself."""

    def _take_singles(self, spans: Sequence[Span], outputs: Outputs, given: dict[int, list[int]]) -> int:
        """Compute a token of each; `given` is told where its row of the output is. Returns how many rows there are."""
        if not spans:
            return 0
        places = self._places
        for one, other in places.moves([places.row(span.sequence) for span in spans]):
            self._store.swap(one, other, max(places.lengths[one], places.lengths[other]))
            places.swapped(one, other)
        by_row = {places.row(span.sequence): span for span in spans}
        used = 0
        for run in places.runs(list(by_row)):
            tokens = np.zeros((run.size, 1), np.int64)
            taking_part = {
                row - run.start: by_row[row] for row in sorted(by_row) if run.start <= row < run.end
            }
            for place, span in taking_part.items():
                tokens[place] = span.tokens[0]
                given[span.sequence] = []
            wanted = {place: span.sequence for place, span in taking_part.items() if span.rows}
            rows, used = self._compute(run, tokens, outputs, used, list(wanted))
            given.update({sequence: [row] for sequence, row in zip(wanted.values(), rows, strict=True)})
        return used

    def _compute(
        self, run: Run, tokens: NDArray[Any], outputs: Outputs, first: int, wanted: Sequence[int]
    ) -> tuple[list[int], int]:
        """Take so many tokens into each row of a run.

        Returns where in the output, from `first` on, the wanted ones' rows are, and where the next may begin.
        """
        count, inputs = tokens.shape[1], self._signature.inputs
        lengths = np.array(self._places.lengths[run.start : run.end])[:, None]
        seen = np.arange(int(lengths.max()) + count) < lengths + count
        # It has to give something.
        asked = wanted or [tokens.size - 1]
        fed = {inputs.input_ids: tokens, inputs.attention_mask: seen}
        if self._signature.positions:
            fed[inputs.position_ids] = lengths + np.arange(count)
        if self._signature.chooses:
            fed[ROWS] = np.array(asked)
        kept = {name: value.astype(self._graph.element(name)) for name, value in fed.items()}
        binding = self._store.binding(run, outputs.name)
        for name, value in kept.items():
            binding.bind_cpu_input(name, value)
        rows, end = outputs.bind(binding, first, (run.size, count), asked)
        try:
            self._graph.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own have no common base, and it raises others, too
            raise EngineFault(f"onnxruntime can't compute a step: {error}") from error
        return rows[: len(wanted)], end

    def _try_out(self) -> None:
        """Raise LoadError for a graph that loads, but can't do what steps ask of it."""
        two = [Span(0, 0, array("i", [0, 0]), 1), Span(0, 2, array("i", [0, 0]), 1)]
        several = [
            Span(number, 4 * (number == 0), array("i", [0]), 1) for number in range(self.capabilities.rows)
        ]
        try:
            for spans in ([two[0]], [two[1]], several):
                rows = self.step(spans)
        except EngineFault as fault:
            raise self._graph.unusable(
                f"its keys and values can't be kept in place, as those of GroupQueryAttention are: {fault}"
            ) from fault
        if not np.isfinite(rows).all():
            raise self._graph.unusable("what it computes are no numbers")
        for sequence in range(self.capabilities.rows):
            self.cut(sequence, 0)


def _rows(config: EngineConfig, context_length: int) -> int:
    """As many sequences as are asked for, or as the bound of the store has room for; one at least."""
    if config.kv_cells is None:
        return config.parallel
    return max(1, min(config.parallel, config.kv_cells // context_length))


def _prompt_tokens(logits: Given) -> int:
    if logits.chosen:
        return steps.PROMPT_TOKENS
    return steps.prompt_tokens(logits.width)
