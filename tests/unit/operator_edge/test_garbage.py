import gc
import weakref

from slm_operator.garbage import look_through, spared


class Node:
    """Refers to itself: only the cyclic collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_survived_a_pass_is_not_looked_at_by_the_next() -> None:
    with spared():
        kept = [Node() for _ in range(1000)]
        gc.collect()
        before = gc.get_freeze_count()
        assert before >= len(kept)
        assert len(gc.get_objects(2)) < len(kept)


def test_garbage_goes_at_once_where_it_is_young_and_by_the_thorough_pass_where_it_is_old() -> None:
    with spared():
        young = weakref.ref(Node())
        gc.collect()
        assert young() is None
        node = Node()
        old = weakref.ref(node)
        gc.collect()
        del node
        gc.collect()
        assert old() is not None
        look_through()
        assert old() is None


def test_nothing_of_it_stays_behind() -> None:
    callbacks = list(gc.callbacks)
    with spared():
        pass
    assert gc.callbacks == callbacks
    assert gc.get_freeze_count() == 0
