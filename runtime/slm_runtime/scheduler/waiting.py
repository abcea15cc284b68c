"""The queue, fair between clients.

Each client has a counter of the tokens it was served (the virtual token counter of Sheng et al., "Fairness
in Serving Large Language Models", 2024); the client with the lowest goes next. A client that comes (back)
starts at the lowest counter of those who are there, so that absence earns no credit. Within a client, requests
take turns: one of many items holds up no other; those of one item each are served as they came.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Client(Generic[Item]):
    __slots__ = ("active", "queues", "served")

    def __init__(self, served: float) -> None:
        self.served = served
        self.active = 0
        """Items taken out and not yet finished."""
        self.queues: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        """By request; the first one's turn is next."""

    def __iter__(self) -> Iterator[Item]:
        for queue in self.queues.values():
            yield from queue

    @property
    def next(self) -> Item:
        return next(iter(self))

    def take(self) -> Item:
        """Take the next item; the others of its request come after all other requests' next ones."""
        request, queue = next(iter(self.queues.items()))
        item = queue.popleft()
        if queue:
            self.queues.move_to_end(request)
        else:
            del self.queues[request]
        return item

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        removed = [item for item in self if unwanted(item)]
        if removed:
            left = {
                request: deque(item for item in queue if not unwanted(item))
                for request, queue in self.queues.items()
            }
            self.queues = OrderedDict((request, queue) for request, queue in left.items() if queue)
        return removed


class FairQueue(Generic[Item]):
    """Items of many clients. Every `pop` is answered by one `finish` of its client, or by `push_front`."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        for client in self._clients.values():
            yield from client

    def push(self, name: str, item: Item, request: Hashable = None) -> None:
        """Put it behind the others of its client's `request`."""
        self._client(name).queues.setdefault(request, deque()).append(item)
        self._length += 1

    def push_front(self, name: str, item: Item, request: Hashable = None) -> None:
        """Put a popped item back as its client's next."""
        client = self._client(name)
        client.active -= 1
        client.queues.setdefault(request, deque()).appendleft(item)
        client.queues.move_to_end(request, last=False)
        self._length += 1

    def peek(self) -> tuple[str, Item] | None:
        """Who is next; the first of equals is the one that came first."""
        waiting = [(name, client) for name, client in self._clients.items() if client.queues]
        if not waiting:
            return None
        name, client = min(waiting, key=lambda pair: (pair[1].served, pair[1].active))
        return name, client.next

    def pop(self, name: str) -> Item:
        """Take the item that `peek` showed."""
        client = self._clients[name]
        client.active += 1
        self._length -= 1
        return client.take()

    def charge(self, name: str, tokens: float) -> None:
        self._clients[name].served += tokens

    def finish(self, name: str) -> None:
        self._clients[name].active -= 1
        self._forget(name)

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take out, without serving them, all items of which `unwanted` is true."""
        removed: list[Item] = []
        for name, client in list(self._clients.items()):
            out = client.remove(unwanted)
            if out:
                removed += out
                self._forget(name)
        self._length -= len(removed)
        return removed

    def _client(self, name: str) -> _Client[Item]:
        client = self._clients.get(name)
        if client is None:
            served = min((other.served for other in self._clients.values()), default=0.0)
            client = self._clients[name] = _Client(served)
        return client

    def _forget(self, name: str) -> None:
        """A client without work leaves no trace: names come from outside and must not pile up."""
        client = self._clients[name]
        if not client.queues and client.active == 0:
            del self._clients[name]
