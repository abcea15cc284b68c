"""The engine process's main: `python -m slm_runtime.engine.process <descriptor of its socket>`.

One thread reads and prepares requests, the other steps. The process ends when the other side of the socket does.
"""

import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from slm_runtime.engine.channel import BlockingChannel, ChannelError
from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import (
    Cancel,
    Detokenize,
    Detokenized,
    Embed,
    EngineConfig,
    Fault,
    Loaded,
    LoadFailed,
    Refused,
    Submit,
    ToEngine,
    Tokenize,
    Tokenized,
)
from slm_runtime.engine.prepare import Prepared, PreparedEmbedding, Preparer
from slm_runtime.engine.protocol import Engine, EngineFault, Vocabulary

log = logging.getLogger(__name__)

_SWITCH_SECONDS: Final = 5e-4
"""How long the reading thread may hold the interpreter while the stepping one waits for it."""

Channel = BlockingChannel[ToEngine]
Inbox = queue.SimpleQueue[Prepared | PreparedEmbedding | Cancel]


Load = Callable[[EngineConfig], tuple[Engine, Loaded] | LoadFailed]


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
    reader = Reader(channel, inbox, Preparer(engine.vocabulary, engine.capabilities), engine.vocabulary)
    threading.Thread(target=reader.run, args=(early,), name="reader", daemon=True).start()
    loop = StepLoop(engine, channel.send, queue_limit=first.queue_limit)
    channel.send(info)
    try:
        serve(loop, inbox)
    except EngineFault as error:
        channel.send(Fault(str(error)))
    return 1


def load_engine(config: EngineConfig) -> tuple[Engine, Loaded] | LoadFailed:
    """Each engine's library is imported here and nowhere else."""
    from slm_runtime.engine.llama_cpp.engine import LlamaCppEngine, LoadError

    try:
        engine = LlamaCppEngine(config)
    except LoadError as error:
        return error.failure
    except EngineFault as error:
        return LoadFailed("EngineFailed", str(error))
    return engine, engine.info


def serve(loop: StepLoop, inbox: Inbox) -> None:
    """Step while there is work, else wait for some. Never returns."""
    while True:
        while loop.idle or not inbox.empty():
            item = inbox.get()
            if isinstance(item, Prepared):
                loop.submit(item)
            elif isinstance(item, PreparedEmbedding):
                loop.embed(item)
            else:
                loop.cancel(item.id)
        loop.step()


class Reader:
    """Answers what needs no step, and puts the rest into the inbox."""

    def __init__(self, channel: Channel, inbox: Inbox, preparer: Preparer, vocabulary: Vocabulary) -> None:
        self._channel = channel
        self._inbox = inbox
        self._preparer = preparer
        self._vocabulary = vocabulary

    def run(self, messages: list[ToEngine]) -> None:
        """Until the other side closes: then nobody waits for anything any more."""
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

    def _prepare(self, message: Submit | Embed) -> Prepared | PreparedEmbedding | Refused:
        """One request must not end all others, whatever is wrong with it."""
        try:
            if isinstance(message, Embed):
                return self._preparer.prepare_embedding(message)
            return self._preparer.prepare(message)
        except Exception as error:
            log.exception("request %d can't be prepared", message.id)
            return Refused(message.id, f"this request can't be prepared: {error}")

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Submit() | Embed():
                prepared = self._prepare(message)
                if isinstance(prepared, Refused):
                    self._channel.send(prepared)
                else:
                    self._inbox.put(prepared)
            case Cancel():
                self._inbox.put(message)
            case Tokenize():
                tokens = self._preparer.encode(
                    [message.text], add_special=message.add_special, parse_special=message.parse_special
                )
                self._channel.send(Tokenized(message.id, tokens))
            case Detokenize():
                known = [token for token in message.tokens if 0 <= token < self._vocabulary.size]
                text = b"".join(self._vocabulary.piece(token, special=True) for token in known)
                self._channel.send(Detokenized(message.id, text.decode(errors="replace")))
            case EngineConfig():
                raise ChannelError("a second configuration")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
