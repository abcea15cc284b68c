"""The API process's side of the engine, against a real process with the deterministic engine in it."""

import asyncio
import contextlib
import gc
import os
import signal
import time

import pytest

from slm_runtime.engine.client import EngineBusy, EngineDied, EngineUnavailable, RequestRefused
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Constraint,
    Delta,
    EmbedRequest,
    GenerateRequest,
    RequestFinished,
    Sampling,
)
from slm_runtime.engine.requests import UNREAD, PendingGeneration
from tests.runtime.engine.supervised import answer, ask, engine, expected, reasons, text_of
from tests.unit.runtime_api.scripted import until
from tests.unit.runtime_engine.playing import Letters


async def test_it_answers():
    async with engine() as supervisor:
        info = await supervisor.ready()
        assert info.engine == "played"
        *_, choice, finished = events = await answer(supervisor, ask())
    assert text_of(events) == expected("hello", 8)
    assert isinstance(choice, ChoiceFinished)
    assert choice.reason == "length"
    assert isinstance(finished, RequestFinished)
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (6, 8)


async def test_many_at_once_get_their_own_answers():
    async with engine() as supervisor:
        await supervisor.ready()
        texts = [f"question {number}" for number in range(20)]
        answers = await asyncio.gather(*[answer(supervisor, ask(text, max_tokens=10)) for text in texts])
        assert [text_of(events) for events in answers] == [expected(text, 10) for text in texts]
        assert supervisor.stats.generated_tokens == 200
        assert supervisor.stats.running == supervisor.stats.waiting == 0
        assert supervisor.stalled_seconds == 0


async def test_a_stop_string_across_tokens_ends_it_and_isn_t_shown():
    whole = expected("hello", 30)
    stop = whole[10:14]
    async with engine() as supervisor:
        await supervisor.ready()
        events = await answer(supervisor, ask(max_tokens=30, stop=[stop]))
    assert text_of(events) == whole[: whole.index(stop)]
    assert [(e.reason, e.stop) for e in events if isinstance(e, ChoiceFinished)] == [("stop", stop)]


async def test_choices_come_apart_and_share_the_prefill():
    async with engine(parallel=4) as supervisor:
        await supervisor.ready()
        events = await answer(supervisor, ask("a" * 60, n=3))
        stats = supervisor.stats
    for choice in range(3):
        assert text_of(e for e in events if isinstance(e, Delta) and e.choice == choice) == expected(
            "a" * 60, 8
        )
    assert stats.cached_tokens >= 2 * 60
    assert stats.prompt_tokens == 3 * 61


BAD_REQUESTS = [
    (ask("a" * 500), "prompt", "context_length_exceeded", "501.*exceeds the context length"),
    (
        ask(max_tokens=499, require_room=True),
        "prompt",
        "context_length_exceeded",
        "505.*exceeds the context length",
    ),
    (ask(max_tokens=0), "max_tokens", "invalid", "at least 1"),
    (ask(n=0), "n", "invalid", "between 1 and"),
    (ask(stop=[""]), "stop", "invalid", "1 to"),
    (GenerateRequest(prompt=[[77]]), "prompt", "invalid", "77"),
    (GenerateRequest(prompt=["a"], sampling=Sampling(top_p=1.5)), "top_p", "invalid", "1.5"),
    (
        GenerateRequest(prompt=["a"], sampling=Sampling(temperature=float("nan"))),
        "temperature",
        "invalid",
        "nan",
    ),
    (GenerateRequest(prompt=["a"], sampling=Sampling(logit_bias={99: 1})), "logit_bias", "invalid", "99"),
    *(
        (GenerateRequest(prompt=["a"], sampling=Sampling(**{name: 1e39})), name, "invalid", r"1e\+06")
        for name in ("frequency_penalty", "presence_penalty", "repeat_penalty")
    ),
    (GenerateRequest(prompt=["a"], sampling=Sampling(logit_bias={3: 1e39})), "logit_bias", "invalid", "1e"),
    (ask(constraint=Constraint("regex", "(")), "constraint", "invalid", "regex"),
    (ask(constraint=Constraint("json_schema", "{")), "constraint", "invalid", "json_schema"),
]


async def test_what_can_t_be_served_is_refused_with_the_numbers():
    async with engine() as supervisor:
        await supervisor.ready()
        for request, param, code, words in BAD_REQUESTS:
            with pytest.raises(RequestRefused, match=words) as refused:
                await supervisor.generate(request)
            assert (refused.value.param, refused.value.code) == (param, code)
        assert text_of(await answer(supervisor, ask())) == expected("hello", 8)


async def test_an_overlong_prompt_keeps_its_beginning_and_its_end_where_asked():
    async with engine(context_length=100) as supervisor:
        await supervisor.ready()
        events = await answer(supervisor, ask("a" * 300, keep_on_overflow=4))
    assert events[-1].usage.prompt_tokens == 4 + 48


async def test_a_full_queue_refuses_in_time_and_says_when_to_come_back():
    async with engine(queue_limit=3, context_length=20000) as supervisor:
        await supervisor.ready()
        running = [await supervisor.generate(ask(f"{n}", max_tokens=None)) for n in range(2)]
        async for _ in running[1]:
            break
        waiting = [await supervisor.generate(ask(f"{n}", max_tokens=1)) for n in range(3)]
        with pytest.raises(EngineBusy) as busy:
            await supervisor.generate(ask())
        assert 0 < busy.value.retry_after <= 60
        assert busy.value.waiting == 3
        for generation in running + waiting:
            generation.cancel()
        assert text_of(await answer(supervisor, ask())) == expected("hello", 8)


async def test_leaving_cancels_and_frees():
    async with engine(parallel=1) as supervisor:
        await supervisor.ready()
        async with await supervisor.generate(ask(max_tokens=450)) as generation:
            async for _ in generation:
                break
        assert text_of(await answer(supervisor, ask("other"))) == expected("other", 8)
        assert supervisor.stats.generated_tokens < 450


async def test_a_deadline_ends_what_waits_and_what_is_on_its_way():
    async with engine(parallel=1, context_length=20000) as supervisor:
        await supervisor.ready()
        long = await supervisor.generate(ask("long", max_tokens=None))
        waited = await answer(supervisor, ask("waiting", deadline=time.monotonic() - 1))
        assert reasons(waited) == ["deadline"]
        assert "waited for its turn" in waited[-1].message
        long.cancel()
        late = await supervisor.generate(ask("late", max_tokens=None, deadline=time.monotonic() + 0.2))
        events = [event async for event in late]
    assert text_of(events) == expected("late", len(text_of(events)))
    assert reasons(events) == ["deadline"]


async def test_a_crash_ends_all_that_was_there_and_what_comes_later_is_served():
    async with engine(parallel=2, context_length=20000) as supervisor:
        await supervisor.ready()
        running = await supervisor.generate(ask("running", max_tokens=None))
        first = await anext(running)
        crashing, waiting = await asyncio.gather(
            answer(supervisor, ask("!crash")), answer(supervisor, ask("waiting")), return_exceptions=True
        )
        events = [first, *[event async for event in running]]
        for failed in (events, crashing):
            assert [e.reason for e in failed if isinstance(e, ChoiceFinished)] == ["error"]
            assert "SIGKILL" in failed[-1].message
        assert isinstance(waiting, EngineDied) or reasons(waiting) == ["unavailable"]
        assert text_of(await answer(supervisor, ask("later"))) == expected("later", 8)
        assert supervisor.restarts == 1
        assert supervisor.state == "Ready"
        assert supervisor.stats.generated_tokens > 8


async def test_a_process_killed_from_outside_is_replaced():
    async with engine() as supervisor:
        await supervisor.ready()
        for _ in range(3):
            os.kill(supervisor.pid, signal.SIGSEGV)
            assert text_of(await answer_when_back(supervisor)) == expected("hello", 8)
        assert supervisor.restarts == 3


async def test_what_ran_when_a_process_died_isn_t_counted_as_running():
    async with engine() as supervisor:
        await supervisor.ready()
        stream = await supervisor.generate(ask("stream", max_tokens=None, ignore_eos=True))
        await anext(stream)
        await until(lambda: supervisor.stats.running == 1)
        made = supervisor.stats.generated_tokens
        os.kill(supervisor.pid, signal.SIGKILL)
        assert [event async for event in stream][-1].message
        assert (supervisor.stats.running, supervisor.stats.kv_cells_used) == (0, 0)
        assert supervisor.stats.generated_tokens >= made


async def test_what_nobody_reads_is_not_kept_for_ever():
    async with engine(context_length=20000) as supervisor:
        await supervisor.ready()
        request = ask("unread", max_tokens=None, ignore_eos=True, logprobs=20)
        unread = await supervisor.generate(request)
        await until(lambda: unread.ended)
        events = [event async for event in unread]
        assert [e.reason for e in events if isinstance(e, ChoiceFinished)] == ["error"]
        assert "too slowly" in events[-1].message
        assert len(events) * 21 < UNREAD + 100
        await until(lambda: supervisor.stats.running == 0)


async def answer_when_back(supervisor):
    """What goes to the dying process is lost with it."""
    while True:
        with contextlib.suppress(EngineDied):
            events = await answer(supervisor, ask())
            if reasons(events) not in (["error"], ["unavailable"]):
                return events


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is no other CPU")
async def test_the_api_thread_keeps_off_the_loops_cpu_and_a_new_process_may_use_all():
    everywhere = os.sched_getaffinity(0)
    async with engine() as supervisor:
        await supervisor.ready()
        for _ in range(2):
            await answer(supervisor, ask())
            assert len(os.sched_getaffinity(0)) == len(everywhere) - 1
            assert os.sched_getaffinity(supervisor.pid) == everywhere
            os.kill(supervisor.pid, signal.SIGKILL)
            await answer_when_back(supervisor)
    assert os.sched_getaffinity(0) == everywhere


async def test_a_fault_says_why():
    async with engine() as supervisor:
        await supervisor.ready()
        *_, finished = await answer(supervisor, ask("!fault"))
        assert "the accelerator is gone" in finished.message


async def test_three_deaths_in_a_row_end_it_and_everything_that_waits():
    async with engine(parallel=1) as supervisor:
        await supervisor.ready()
        for _ in range(2):
            assert reasons(await answer(supervisor, ask("!crash"))) == ["error"]
        last, waiting = await asyncio.gather(
            answer(supervisor, ask("!crash")), answer(supervisor, ask("never")), return_exceptions=True
        )
        assert "3 times in a row" in await supervisor.failed()
        assert reasons(last) == ["error"]
        assert isinstance(waiting, EngineUnavailable) or reasons(waiting) == ["unavailable"]
        with pytest.raises(EngineUnavailable):
            await supervisor.generate(ask())


async def test_a_request_that_kills_its_reader_isn_t_given_to_another():
    async with engine() as supervisor:
        await supervisor.ready()
        poison, behind_it = await asyncio.gather(
            answer(supervisor, ask("!poison")), answer(supervisor, ask()), return_exceptions=True
        )
        assert isinstance(poison, EngineDied)
        assert isinstance(behind_it, EngineDied)
        assert text_of(await answer(supervisor, ask())) == expected("hello", 8)
        assert supervisor.restarts == 1


async def test_what_comes_while_no_process_runs_survives_the_death_of_one_that_loads(tmp_path):
    async with engine(model_path=f"die once {tmp_path}") as supervisor:
        await supervisor.ready()
        (tmp_path / "die").touch()
        os.kill(supervisor.pid, signal.SIGKILL)
        await until(lambda: supervisor.state == "Restarting")
        assert text_of(await answer(supervisor, ask())) == expected("hello", 8)
        assert supervisor.restarts == 2


async def test_a_wrong_model_is_said_so_at_once():
    async with engine(model_path="wrong") as supervisor:
        assert await supervisor.failed() == "wrong is no model"
        assert supervisor.failure_reason == "InvalidModel"
        with pytest.raises(EngineUnavailable, match="wrong is no model"):
            await supervisor.ready()
        assert supervisor.restarts == 0


async def test_what_a_second_process_refuses_ends():
    cancelled = []
    generation = PendingGeneration(1, ask(n=2), cancelled.append)
    generation.accept(6)
    generation.refuse(EngineBusy("the server is busy", retry_after=1.0, waiting=9))
    events = [event async for event in generation]
    assert reasons(events) == ["unavailable", "unavailable"]
    assert events[-1].message == "the server is busy"
    assert cancelled == []


async def test_a_process_that_dies_while_it_loads_is_tried_three_times():
    async with engine(model_path="die") as supervisor:
        assert "SIGSEGV" in await supervisor.failed()


async def test_before_the_first_load_requests_are_turned_away():
    async with engine() as supervisor:
        with pytest.raises(EngineUnavailable, match="loaded"):
            await supervisor.generate(ask())


async def test_closing_ends_what_runs_and_what_waits_and_refuses_what_is_new():
    async with engine(parallel=1, context_length=20000) as supervisor:
        await supervisor.ready()
        running = await supervisor.generate(ask("running", max_tokens=None))
        await anext(running)
        waiting = await supervisor.generate(ask("waiting", n=2))
        await supervisor.close()
        assert supervisor.pid is None
        with pytest.raises(EngineUnavailable):
            await supervisor.generate(ask())
        *_, choice, finished = [event async for event in running]
        assert choice.reason == "error"
        assert finished.message == "the server is shutting down"
        events = [event async for event in waiting]
        assert reasons(events) == ["unavailable", "unavailable"]
        assert events[-1].message == "the server is shutting down"


class Gate:
    """A long prompt whose reading lasts until the gate is opened."""

    def __init__(self, folder):
        self.folder = folder
        self.request = ask(f"!gate {folder} ".ljust(70_000, "x"))

    async def reached(self):
        while not (self.folder / "reached").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def open(self):
        (self.folder / "open").touch()


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


async def test_nobody_waits_while_a_long_prompt_is_read(gate):
    async with engine(context_length=100_000) as supervisor:
        await supervisor.ready()
        slowly = asyncio.create_task(answer(supervisor, gate.request))
        await gate.reached()
        assert text_of(await answer(supervisor, ask())) == expected("hello", 8)
        assert await supervisor.detokenize([3]) == "#"
        assert not slowly.done()
        gate.open()
        assert text_of(await slowly) == expected(gate.request.prompt[0], 8)


async def test_a_long_prompt_whose_client_goes_before_it_is_read_is_never_computed(gate):
    async with engine(context_length=100_000) as supervisor:
        await supervisor.ready()
        being_read = asyncio.create_task(supervisor.generate(gate.request))
        await gate.reached()
        behind_it = asyncio.create_task(supervisor.generate(ask("behind".ljust(70_000, "x"))))
        await answer(supervisor, ask())
        for slowly in (being_read, behind_it):
            slowly.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slowly
        gate.open()
        other = ask("other".ljust(70_000, "x"))
        assert text_of(await answer(supervisor, other)) == expected(other.prompt[0], 8)
        assert supervisor.stats.prompt_tokens == 6 + 70_001


async def test_what_can_t_fit_is_refused_unread():
    async with engine(context_length=100) as supervisor:
        await supervisor.ready()
        for refuse in (
            supervisor.generate(ask("!poison".ljust(4000, "x"))),
            supervisor.embed(EmbedRequest(inputs=["x" * 4000])),
        ):
            with pytest.raises(
                RequestRefused, match="4000 characters, and exceeds the context length of 100 "
            ) as refused:
                await refuse
            assert refused.value.code == "context_length_exceeded"


async def test_a_refused_request_is_forgotten_without_the_collector():
    async with engine(context_length=100) as supervisor:
        await supervisor.ready()
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(RequestRefused):
                await supervisor.generate(ask("x" * 4000))
            assert not [each for each in gc.get_objects() if isinstance(each, PendingGeneration)]
        finally:
            gc.enable()


async def test_an_overlong_input_is_cut_where_asked():
    async with engine(context_length=100) as supervisor:
        await supervisor.ready()
        embedded = await supervisor.embed(EmbedRequest(inputs=[[3] * 300], truncate=True))
        assert embedded.prompt_tokens == 100


async def test_tokens_and_text_go_both_ways():
    async with engine() as supervisor:
        await supervisor.ready()
        tokens = await supervisor.tokenize("abc", add_special=True)
        assert tokens == Letters().add_special(Letters().tokenize("abc", parse_special=True))
        assert await supervisor.detokenize([3, 4, 5]) == "#$%"
