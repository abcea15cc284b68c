"""The engine process's main: `python -m slm_runtime.engine.process <descriptor of its socket>`.

One thread reads and prepares requests, a second does so with those that take long, and the main one steps. The process ends
when the other side of the socket does.
"""

import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec

from slm_runtime.engine.channel import BlockingChannel, ChannelError
from slm_runtime.engine.encoding import EncoderLoop
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import EngineConfig, Loaded, LoadFailed
from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import (
    Busy,
    Cancel,
    Detokenize,
    Detokenized,
    Embed,
    Fault,
    Picture,
    Prompt,
    Rank,
    Refused,
    Score,
    Submit,
    ToEngine,
    Tokenize,
    Tokenized,
)
from slm_runtime.engine.prepare import Preparer, Sound
from slm_runtime.engine.protocol import (
    TOKENIZING_STACK_BYTES,
    Encoder,
    Engine,
    EngineFault,
    Vocabulary,
)
from slm_runtime.engine.registry import loader
from slm_runtime.engine.structs import Message

log = logging.getLogger(__name__)

_SWITCH_SECONDS: Final = 5e-4
"""How long the reading thread may hold the interpreter while the stepping one waits for it."""

_HEAVY_TEXT: Final = 1 << 16
"""Characters that are read within some 20 ms."""
_HEAVY_WAITING: Final = 128
_HEAVY_RETRY_SECONDS: Final = 5.0

Channel = BlockingChannel[ToEngine]
Work = Submit | Embed | Rank | Score | Tokenize
Inbox = queue.SimpleQueue[Sound | Cancel]

Load = Callable[[EngineConfig], tuple[Engine | Encoder, Loaded] | LoadFailed]


class Loop(Protocol):
    """What the main thread drives."""

    @property
    def idle(self) -> bool:
        """Nothing to do until a request comes."""
        ...

    def take(self, sound: Sound) -> None: ...

    def cancel(self, request: int) -> None:
        """Free all that the request holds; it is told nothing more."""
        ...

    def step(self) -> None:
        """Carry the requests on by as little as is worth it. Raises EngineFault."""
        ...


def main(descriptor: int, load: Load | None = None) -> int:
    """Runs until its socket closes or the engine fails. `load` is another engine's, in tests."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_SECONDS)
    decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
    channel = Channel(socket.socket(fileno=descriptor), decoder)
    early = channel.receive()
    if not early or not isinstance(first := early.pop(0), EngineConfig):
        return 1
    loaded = (load or load_engine)(first)
    if isinstance(loaded, LoadFailed):
        channel.send(loaded)
        return 1
    engine, info = loaded
    inbox: Inbox = queue.SimpleQueue()
    media = None if isinstance(engine, Encoder) else engine.media
    preparer = Preparer(engine.vocabulary, engine.capabilities, media)
    reader = Reader(channel, inbox, preparer, engine.vocabulary)
    threading.stack_size(TOKENIZING_STACK_BYTES)
    threading.Thread(target=reader.run, args=(early,), name="reader", daemon=True).start()
    loop = loop_of(engine, channel.send, first.queue_limit)
    channel.send(info)
    try:
        serve(loop, inbox, reader.rest)
    except EngineFault as error:
        channel.send(Fault(str(error)))
    return 1


def load_engine(config: EngineConfig) -> tuple[Engine | Encoder, Loaded] | LoadFailed:
    try:
        return loader(config.engine)(config)
    except LoadError as error:
        return error.failure
    except EngineFault as error:
        return LoadFailed("EngineFailed", str(error))


def loop_of(engine: Engine | Encoder, send: Callable[[Message], None], queue_limit: int) -> Loop:
    if isinstance(engine, Encoder):
        return EncoderLoop(engine, send, queue_limit=queue_limit)
    return StepLoop(engine, send, queue_limit=queue_limit)


def serve(loop: Loop, inbox: Inbox, rest: Callable[[], None]) -> None:
    """Step while there is work, else wait for some. Never returns.

    `rest` is called once, when the first work is done.
    """
    worked = rested = False
    while True:
        while loop.idle or not inbox.empty():
            if worked and not rested and inbox.empty():
                rested = True
                rest()
            item = inbox.get()
            if isinstance(item, Cancel):
                loop.cancel(item.id)
            else:
                loop.take(item)
        loop.step()
        worked = True


class Reader:
    """Answers what needs no step, and puts the rest into the inbox.

    What may take long, a long text or a grammar, has a thread of its own: nobody else waits for it.
    """

    def __init__(self, channel: Channel, inbox: Inbox, preparer: Preparer, vocabulary: Vocabulary) -> None:
        self._channel = channel
        self._inbox = inbox
        self._preparer = preparer
        self._vocabulary = vocabulary
        self._heavy: dict[int, Work] = {}
        """Not yet done by the other thread; what is cancelled leaves."""
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        """Of the other thread."""
        self._lock = threading.Lock()
        """Between taking out of `_heavy` and putting into the inbox, in whichever order."""

    def run(self, messages: list[ToEngine]) -> None:
        """Until the other side closes: then nobody waits for anything any more."""
        threading.Thread(target=self._work, name="heavy", daemon=True).start()
        try:
            while True:
                for message in messages:
                    self._handle(message)
                messages = self._channel.receive()
                if not messages:
                    break
        except (ChannelError, OSError):
            log.exception("the API process can't be understood")
        finally:
            os._exit(0)

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Submit() | Embed() | Rank() | Score() | Tokenize() if is_heavy(message):
                if len(self._heavy) >= _HEAVY_WAITING:
                    self._channel.send(Busy(message.id, _HEAVY_RETRY_SECONDS, len(self._heavy)))
                else:
                    self._heavy[message.id] = message
                    self._tasks.put(partial(self._work_on, message.id))
            case Submit() | Embed() | Rank() | Score() | Tokenize():
                self._give(self._done(message))
            case Cancel():
                with self._lock:
                    if self._heavy.pop(message.id, None) is None:
                        self._inbox.put(message)
            case Detokenize():
                known = [token for token in message.tokens if 0 <= token < self._vocabulary.size]
                text = b"".join(self._vocabulary.piece(token, special=True) for token in known)
                self._channel.send(Detokenized(message.id, text.decode(errors="replace")))
            case EngineConfig():
                raise ChannelError("a second configuration")

    def rest(self) -> None:
        """Nobody waits for anything: what the first constrained request would hold others up for is done now."""
        self._tasks.put(self._preparer.read_vocabulary)

    def _work(self) -> None:
        while True:
            self._tasks.get()()

    def _work_on(self, identity: int) -> None:
        message = self._heavy.get(identity)
        if message is None:
            return
        done = self._done(message)
        with self._lock:
            if self._heavy.pop(identity, None) is not None:
                self._give(done)

    def _give(self, done: Sound | Tokenized | Refused) -> None:
        if isinstance(done, Tokenized | Refused):
            self._channel.send(done)
        else:
            self._inbox.put(done)

    def _done(self, message: Work) -> Sound | Tokenized | Refused:
        """One request must not end all others, whatever is wrong with it."""
        try:
            match message:
                case Submit():
                    return self._preparer.prepare(message)
                case Embed():
                    return self._preparer.prepare_embedding(message)
                case Rank():
                    return self._preparer.prepare_ranking(message)
                case Score():
                    return self._preparer.prepare_scoring(message)
                case Tokenize():
                    return self._preparer.prepare_tokens(message)
        except Exception as error:
            log.exception("request %d can't be prepared", message.id)
            return Refused(message.id, f"this request can't be prepared: {error}")


def is_heavy(message: Work) -> bool:
    """Whether it may take longer than others should have to wait."""
    match message:
        case Submit():
            return (
                message.request.constraint is not None
                or len(message.request.foretold) > _HEAVY_TEXT
                or _is_heavy(message.request.prompt)
            )
        case Embed() | Score():
            return _length(message.request.inputs) > _HEAVY_TEXT
        case Rank():
            return _length(message.request.queries) + _length(message.request.documents) > _HEAVY_TEXT
        case Tokenize():
            return _is_heavy(message.prompt)


def _is_heavy(prompt: Prompt) -> bool:
    texts = [part for part in prompt if not isinstance(part, Picture)]
    return len(texts) < len(prompt) or _length(texts) > _HEAVY_TEXT


def _length(parts: Sequence[str | list[int]]) -> int:
    return sum(map(len, parts))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
