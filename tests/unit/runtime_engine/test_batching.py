"""What goes into an encoder's step."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from slm_runtime.engine.protocol import EncoderCapabilities
from slm_runtime.scheduler.batching import Batcher, Input

CAN = EncoderCapabilities(context_length=100, inputs=4, step_tokens=32, ranks=False)


def put(batcher, request, *lengths, client="a"):
    for place, length in enumerate(lengths):
        batcher.put(Input(request, place, client, array("i", [1] * length)))


def steps(batcher):
    while batch := batcher.take():
        batcher.done(batch)
        yield [(one.request, one.place) for one in batch]


def test_a_step_holds_inputs_of_many_requests():
    batcher = Batcher(CAN)
    put(batcher, 1, 8)
    put(batcher, 2, 8)
    put(batcher, 3, 8, client="b")
    assert sorted(next(steps(batcher))) == [(1, 0), (2, 0), (3, 0)]


def test_a_long_input_goes_alone():
    batcher = Batcher(CAN)
    put(batcher, 1, 100, 5)
    put(batcher, 2, 5)
    assert list(steps(batcher)) == [[(1, 0)], [(2, 0), (1, 1)]]


def test_one_request_of_many_inputs_holds_up_no_other():
    batcher = Batcher(CAN)
    put(batcher, 1, *[8] * 2000)
    put(batcher, 2, 8)
    put(batcher, 3, 8, client="b")
    first = next(steps(batcher))
    assert (2, 0) in first
    assert (3, 0) in first


def test_what_is_removed_never_comes():
    batcher = Batcher(CAN)
    put(batcher, 1, *[8] * 20)
    put(batcher, 2, 8)
    batcher.remove(lambda one: one.request == 1)
    assert list(steps(batcher)) == [[(2, 0)]]
    assert batcher.waiting_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 100), min_size=1)), max_size=20))
def test_every_input_comes_once_and_no_step_is_larger_than_it_can_be(requests):
    batcher = Batcher(CAN)
    for request, (client, lengths) in enumerate(requests):
        put(batcher, request, *lengths, client=client)
    come = []
    for batch in steps(batcher):
        lengths = [requests[request][1][place] for request, place in batch]
        assert len(batch) <= CAN.inputs
        assert len(batch) == 1 or sum(lengths) <= CAN.step_tokens
        come += batch
    assert sorted(come) == [
        (request, place) for request, (_, lengths) in enumerate(requests) for place in range(len(lengths))
    ]
