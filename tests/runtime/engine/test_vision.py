"""Images in prompts, on tiny models and projectors of every kind: as libmtmd itself would take them in, and only once."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import llama_cpp as native
from llama_cpp import mtmd_cpp as mtmd

from slm_contract import pictures
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp import projector as module
from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.engine.llama_cpp.engine import LlamaCppEngine
from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    GenerateRequest,
    Picture,
    Prompt,
    Refused,
    RequestFinished,
    Sampling,
    StepOutput,
    Submit,
    Tokenize,
    Tokenized,
)
from slm_runtime.engine.prepare import Prepared, Preparer
from slm_runtime.engine.structs import Message
from slm_runtime.pictures.decoder import PictureDecoder
from tests.support.gguf import write_tiny_gguf
from tests.support.pictures import picture
from tests.support.projector import KINDS, MARKS, TinyProjector

pytestmark = pytest.mark.runtime

SMALL = TinyProjector(image_size=16, patch_size=4)


def files(folder: Path, kind: str) -> tuple[Path, Path]:
    window = 64 if kind == "gemma3" else None
    architecture = "qwen2vl" if kind == "qwen2vl_merger" else "llama"
    model = write_tiny_gguf(
        folder / "model.gguf", architecture=architecture, sliding_window=window, control=MARKS
    )
    return model, replace(SMALL, kind=kind).write(folder / "mmproj.gguf")


@dataclass
class Answered:
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    first: dict[int, float] = field(default_factory=dict)
    """The likeliest first tokens, and their log probabilities."""
    reasons: list[str] = field(default_factory=list)
    end: RequestFinished | None = None


class Driven:
    """The step loop on the real engine, in this process."""

    def __init__(self, engine: LlamaCppEngine) -> None:
        self.engine = engine
        self.preparer = Preparer(engine.vocabulary, engine.capabilities, engine.media)
        self.loop = StepLoop(engine, self._take, queue_limit=16)
        self.answers: dict[int, Answered] = {}

    def submit(self, prompt: Prompt, **fields: object) -> Answered:
        identity = len(self.answers) + 1
        sampling = Sampling(temperature=0)
        request = GenerateRequest(
            **{  # type: ignore[arg-type]
                "prompt": prompt,
                "max_tokens": 4,
                "ignore_eos": True,
                "sampling": sampling,
                "logprobs": 20,
                **fields,
            }
        )
        prepared = self.preparer.prepare(Submit(identity, request))
        assert isinstance(prepared, Prepared), prepared
        self.answers[identity] = Answered()
        self.loop.submit(prepared)
        return self.answers[identity]

    def ask(self, prompt: Prompt, **fields: object) -> Answered:
        answer = self.submit(prompt, **fields)
        self.run()
        return answer

    def run(self) -> None:
        while not self.loop.idle:
            self.loop.step()

    def _take(self, message: Message) -> None:
        if not isinstance(message, StepOutput):
            return
        for event in [*message.deltas, *message.choices, *message.finished]:
            answer = self.answers[event.id]
            if isinstance(event, Delta):
                if not answer.tokens and event.logprobs:
                    answer.first = {one.token: one.logprob for one in event.logprobs[0].top}
                answer.text += event.text
                answer.tokens += event.tokens
            elif isinstance(event, ChoiceFinished):
                answer.reasons.append(event.reason)
            else:
                answer.end = event


def cached(answer: Answered) -> int:
    assert answer.end is not None
    return answer.end.usage.cached_tokens


@pytest.fixture
def driven(request, make_engine, tmp_path) -> Iterator[Driven]:
    kind, fields = request.param if isinstance(request.param, tuple) else (request.param, {})
    model, mmproj = files(tmp_path, kind)
    engine = make_engine(
        model, projector=str(mmproj), **{"parallel": 4, "batch_size": 256, "threads": 1, **fields}
    )
    yield Driven(engine)
    engine.close()


def anew(make_engine, folder: Path, prompt: Prompt) -> Answered:
    """What an engine answers that has taken in nothing before, of the same files."""
    model, mmproj = folder / "model.gguf", str(folder / "mmproj.gguf")
    engine = make_engine(model, projector=mmproj, parallel=4, batch_size=256, threads=1)
    answer = Driven(engine).ask(prompt)
    engine.close()
    return answer


def by_libmtmd(model: Path, mmproj: Path, text: bytes, images: list[bytes]) -> np.ndarray:
    """The log probabilities of what comes after a prompt, as the library's own helper evaluates it."""
    load_backends()
    handle = native.llama_model_load_from_file(str(model).encode(), native.llama_model_default_params())
    params = native.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = 512, 256, 256, 1
    context = native.llama_init_from_model(handle, params)
    own = mtmd.mtmd_context_params_default()
    own.use_gpu, own.n_threads, own.image_max_tokens = False, 1, 256
    vision = mtmd.mtmd_init_from_file(str(mmproj).encode(), handle, own)
    decoder = PictureDecoder()
    pixels = [decoder.decode(image) for image in images]
    decoder.close()
    bitmaps = [
        mtmd.mtmd_bitmap_init(
            each.width, each.height, ctypes.cast(ctypes.c_char_p(each.data), ctypes.POINTER(ctypes.c_uint8))
        )
        for each in pixels
    ]
    chunks = mtmd.mtmd_input_chunks_init()
    given = mtmd.mtmd_input_text(text, len(text), True, True)
    array = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
    assert mtmd.mtmd_tokenize(vision, chunks, ctypes.byref(given), array, len(bitmaps)) == 0
    past = native.llama_pos(0)
    done = mtmd.mtmd_helper_eval_chunks(vision, context, chunks, 0, 0, 256, True, ctypes.byref(past))
    assert done == 0
    size = native.llama_vocab_n_tokens(native.llama_model_get_vocab(handle))
    logits = np.ctypeslib.as_array(native.llama_get_logits_ith(context, -1), (size,)).astype(np.float64)
    mtmd.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(vision)
    native.llama_free(context)
    native.llama_model_free(handle)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def prompt_of(text: bytes, images: list[bytes]) -> Prompt:
    texts = text.decode().split("<__media__>")
    prompt: Prompt = [texts[0]] if texts[0] else []
    for index, (image, following) in enumerate(zip(images, texts[1:], strict=True)):
        prompt.append(Picture(image, f"image {index}"))
        if following:
            prompt.append(following)
    return prompt


@pytest.mark.parametrize("text", [b"what is <__media__> and <__media__>then?", b"<__media__><__media__> say"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_libmtmd_itself_makes_of_it(make_engine, tmp_path, kind, text):
    model, mmproj = files(tmp_path, kind)
    images = [picture(1), picture(2, width=28, height=60)]
    expected = by_libmtmd(model, mmproj, text, images)
    engine = make_engine(model, projector=str(mmproj), parallel=2, batch_size=256, threads=1)
    answer = Driven(engine).ask(prompt_of(text, images))
    engine.close()
    assert len(answer.first) == 20
    assert [answer.first[token] for token in answer.first] == pytest.approx(
        [expected[token] for token in answer.first], abs=2e-3
    )


@pytest.mark.parametrize("driven", KINDS, indirect=True)
def test_a_second_question_about_a_picture_computes_nothing_of_it(driven):
    seen = ["look: ", Picture(picture(1), "x")]
    first = driven.ask([*seen, " what is it?"])
    again = driven.ask([*seen, " and its colour?"])
    fresh = driven.ask([*seen, " and its colour?"], adapter=0, n=2)
    other = driven.ask(["look: ", Picture(picture(2), "x"), " what is it?"])
    told = driven.preparer.prepare_tokens(Tokenize(1, seen, add_special=True))
    assert cached(first) == 0
    start, *_, end = (place for place, token in enumerate(told.tokens) if token < 0)
    # What can't be cut was saved where the picture ends; it is followed by a few tokens of its own.
    cuts = driven.engine.capabilities.partial_removal
    assert cached(again) >= (len(told.tokens) if cuts else end + 1)
    assert cached(fresh) > cached(again) - (not cuts)
    assert cached(other) == (start if cuts else 0)
    assert other.first != first.first


@pytest.mark.parametrize("driven", KINDS, indirect=True)
def test_what_was_kept_is_as_good_as_what_is_computed(driven, make_engine, tmp_path):
    """Copied and cut behind an image and after it, where positions aren't the numbers of tokens."""
    one, two = Picture(picture(1), "x"), Picture(picture(2, width=60, height=24), "y")
    driven.ask(["a ", one, " b c d e", two, " f"])
    kept = driven.ask(["a ", one, " b c d g", two, " h"])
    assert cached(kept) >= 8
    fresh = anew(make_engine, tmp_path, ["a ", one, " b c d g", two, " h"])
    assert cached(fresh) == 0
    assert kept.tokens == fresh.tokens
    assert list(kept.first.values()) == pytest.approx(list(fresh.first.values()), abs=2e-3)


@pytest.mark.parametrize(
    "driven", [("mlp", {"batch_size": 5}), ("qwen2vl_merger", {"batch_size": 7})], indirect=True
)
def test_an_image_larger_than_a_step_is_taken_in_by_parts(driven, make_engine, tmp_path):
    prompt: Prompt = ["see ", Picture(picture(1), "x"), " now"]
    parts = driven.ask(prompt)
    whole = anew(make_engine, tmp_path, prompt)
    assert parts.tokens == whole.tokens
    assert list(parts.first.values()) == pytest.approx(list(whole.first.values()), abs=2e-3)


@pytest.mark.parametrize("driven", [("gemma3", {"batch_size": 4, "parallel": 1})], indirect=True)
def test_one_that_must_be_seen_whole_goes_into_one_step_or_is_refused(driven, make_engine, tmp_path):
    assert driven.ask([Picture(picture(1), "x"), " now"]).reasons == ["length"]
    engine = make_engine(
        tmp_path / "model.gguf",
        projector=str(tmp_path / "mmproj.gguf"),
        parallel=1,
        batch_size=3,
        threads=1,
    )
    preparer = Preparer(engine.vocabulary, engine.capabilities, engine.media)
    refused = preparer.prepare(Submit(1, GenerateRequest(prompt=[Picture(picture(1), "messages[0]")])))
    engine.close()
    assert isinstance(refused, Refused)
    assert (refused.param, "it takes 4 tokens" in refused.message) == ("messages[0]", True)


@pytest.mark.parametrize("driven", ["mlp"], indirect=True)
def test_others_go_on_while_an_image_is_encoded(driven, monkeypatch):
    monkeypatch.setattr(module, "_SLICE_SECONDS", 0.0)
    stream = driven.submit(["tell me"], max_tokens=300, logprobs=None)
    while not stream.tokens:
        driven.loop.step()
    before = len(stream.tokens)
    looking = driven.submit([Picture(picture(1), "x"), " what?"])
    while not looking.tokens:
        driven.loop.step()
    between = len(stream.tokens) - before
    driven.run()
    assert between >= 3
    assert len(stream.tokens) == 300


@pytest.mark.parametrize("driven", ["idefics3"], indirect=True)
def test_one_that_is_cancelled_while_it_is_encoded_holds_up_nobody(driven, monkeypatch):
    monkeypatch.setattr(module, "_SLICE_SECONDS", 0.0)
    driven.submit([Picture(picture(1), "x"), " what?"])
    for _ in range(3):
        driven.loop.step()
    driven.loop.cancel(1)
    assert driven.loop.idle
    assert driven.ask([Picture(picture(2), "x"), " what?"]).reasons == ["length"]
    assert driven.ask([Picture(picture(1), "x"), " what?"]).reasons == ["length"]


@pytest.mark.parametrize("driven", ["mlp"], indirect=True)
def test_what_was_encoded_is_kept_within_bounds_and_made_anew(driven, monkeypatch):
    monkeypatch.setattr(pictures, "ENCODED_BYTES", 1)
    monkeypatch.setattr(pictures, "PIXEL_BYTES", 1)
    prompts = [["look ", Picture(picture(seed), "x"), " now"] for seed in range(3)]
    answers = [driven.submit(prompt) for prompt in prompts]
    driven.run()
    assert all(answer.reasons == ["length"] for answer in answers)
    assert len({tuple(answer.first.items()) for answer in answers}) == 3


@pytest.mark.parametrize("driven", ["mlp"], indirect=True)
def test_choices_share_an_image_and_penalties_leave_it_alone(driven):
    sampling = Sampling(temperature=0, repeat_penalty=1.5, penalize_prompt=True, repeat_in_prompt=True)
    answer = driven.ask([Picture(picture(1), "x"), " what?"], n=3, sampling=sampling)
    assert answer.reasons == ["length"] * 3
    assert answer.end.usage.prompt_tokens > 16


@pytest.mark.parametrize("driven", ["mlp"], indirect=True)
def test_its_tokens_are_counted_and_bounded_by_the_context(driven):
    told = driven.preparer.prepare_tokens(Tokenize(1, ["a", Picture(picture(1), "x"), " b"]))
    assert isinstance(told, Tokenized)
    assert sum(token < 0 for token in told.tokens) == 16
    many: Prompt = [Picture(picture(seed), f"image {seed}") for seed in range(40)]
    refused = driven.preparer.prepare(Submit(1, GenerateRequest(prompt=many, keep_on_overflow=4)))
    assert isinstance(refused, Refused)
    assert refused.code == "context_length_exceeded"
    told = driven.preparer.prepare(Submit(1, GenerateRequest(prompt=[told.tokens])))
    assert isinstance(told, Refused), "tokens of a client stand for no image"


def test_no_image_is_taken_without_a_projector(make_engine, tiny):
    engine = make_engine(tiny, parallel=1, batch_size=64, threads=1)
    assert not engine.info.sees
    refused = Preparer(engine.vocabulary, engine.capabilities, engine.media).prepare(
        Submit(1, GenerateRequest(prompt=[Picture(picture(1), "messages[0].content[1]")]))
    )
    engine.close()
    assert isinstance(refused, Refused)
    assert refused.param == "messages[0].content[1]"


def test_memory_is_told_with_the_projector_s(make_engine, tmp_path):
    model, mmproj = files(tmp_path, "mlp")
    without = make_engine(model, parallel=1, batch_size=64, threads=1)
    without.close()
    engine = make_engine(model, projector=str(mmproj), parallel=1, batch_size=64, threads=1)
    engine.close()
    assert engine.info.sees
    more = engine.info.memory.weights - without.info.memory.weights
    assert more == pytest.approx(mmproj.stat().st_size, rel=0.2)
    assert engine.info.memory.compute >= without.info.memory.compute + pictures.ENCODED_BYTES


@pytest.mark.parametrize("wrong", ["missing", "no projector", "of another model"])
def test_a_projector_that_doesn_t_fit_is_refused(make_engine, tiny, tmp_path, wrong):
    path = tmp_path / "mmproj.gguf"
    if wrong == "no projector":
        path.write_bytes(tiny.read_bytes())
    elif wrong == "of another model":
        replace(SMALL, output=128).write(path)
    with pytest.raises(LoadError, match="projector") as refused:
        make_engine(tiny, projector=str(path), parallel=1, batch_size=64, threads=1)
    assert refused.value.failure.reason == "InvalidModel"
