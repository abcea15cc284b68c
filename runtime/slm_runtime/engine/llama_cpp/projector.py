"""Images in prompts: libmtmd makes hidden states of them, which go into a sequence in the place of tokens.

What is kept of an image that was read is which tokens it takes; what was encoded is kept as long as there is room. Both go
by the file's content, so the same picture is read and encoded once, whoever sends it.
"""

import ctypes
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256, shake_128
from pathlib import Path
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as native
from llama_cpp import mtmd_cpp as mtmd

from slm_contract import pictures
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp.batch import Grid
from slm_runtime.engine.llama_cpp.model import LlamaModel
from slm_runtime.engine.llama_cpp.slicing import Sliced
from slm_runtime.engine.loading import LoadFailureReason
from slm_runtime.engine.protocol import MediumFailed, MediumInvalid, MediumPart, Rows, Span, Unfinished
from slm_runtime.pictures.decoder import PictureDecoder, Pixels

_KNOWN: Final = 1024
"""Pictures whose tokens are remembered."""
_MOST_TOKENS: Final = 1024
_FEWEST_TOKENS: Final = 256
"""What an image may take at most, where its own size decides: more take minutes on a CPU."""
_SLICE_SECONDS: Final = 0.05
"""For so long, and to the end of an operation of the graph, those that generate wait for an image at a time."""
_MARKER: Final = b"<__media__>"
"""Where libmtmd puts a picture in a text; no text of a client's is ever given to it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Of a picture."""

    number: int
    tokens: int
    grid: Grid
    """As of MediaBatch."""
    positions: int
    """That it takes, as the model counts."""


@dataclass(slots=True, eq=False)
class Encoding:
    """A part of a picture in a prompt, and what it was encoded to, until that is taken in. Implements Encodable."""

    picture: bytes
    """The digest of its file."""
    part: _Part
    data: bytes
    kept: "_Kept"
    rows: Rows | None = None

    @property
    def ready(self) -> bool:
        return self.rows is not None or self.kept.has(self.picture, self.part.number)

    @property
    def size(self) -> int:
        return 0 if self.part.number else len(self.data)


class _Kept:
    """What was encoded of late."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[bytes, int], Rows] = OrderedDict()
        self._bytes = 0

    def has(self, picture: bytes, number: int) -> bool:
        return (picture, number) in self._rows

    def get(self, picture: bytes, number: int) -> Rows | None:
        if not self.has(picture, number):
            return None
        self._rows.move_to_end((picture, number))
        return self._rows[picture, number]

    def put(self, picture: bytes, number: int, rows: Rows) -> None:
        self._rows[picture, number] = rows
        self._bytes += rows.nbytes
        while self._bytes > pictures.ENCODED_BYTES and len(self._rows) > 1:
            self._bytes -= self._rows.popitem(last=False)[1].nbytes


class Projector:
    """Implements MediaReader. `rows` belongs to the thread that steps, `read` to any other."""

    def __init__(self, model: LlamaModel, path: str, context_length: int, step_tokens: int) -> None:
        """Raise LoadError for a file that doesn't fit the model."""
        if not Path(path).is_file():
            raise LoadError("InvalidModel", f"there is no projector file {path}")
        mtmd.mtmd_helper_log_set(model.log.callback, ctypes.c_void_p(0))
        self._sliced = Sliced()
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = model.config.provider != "cpu"
        params.print_timings = False
        params.n_threads = model.threads
        params.media_marker = _MARKER
        params.image_max_tokens = max(_FEWEST_TOKENS, min(_MOST_TOKENS, context_length // 2))
        params.cb_eval = self._sliced.callback
        self._context = mtmd.mtmd_init_from_file(path.encode(), model.handle, params)
        if not self._context:
            why = " ".join(model.log.errors) or "no reason given"
            reason: LoadFailureReason = "OutOfMemory" if "alloc" in why else "InvalidModel"
            raise LoadError(reason, f"llama.cpp can't load the projector {Path(path).name}: {why}")
        if not mtmd.mtmd_support_vision(self._context):
            raise LoadError("UnsupportedArchitecture", f"{Path(path).name} is no projector for images")
        self.whole = bool(mtmd.mtmd_decode_use_non_causal(self._context, None))
        """Each position of a part sees all others of it."""
        self.axes = 4 if mtmd.mtmd_decode_use_mrope(self._context) else 1
        """Numbers that say where a token is."""
        self.width: int = native.llama_model_n_embd_inp(model.handle)
        self.buffers = pictures.ENCODED_BYTES + pictures.PIXEL_BYTES
        """Bytes that it keeps, at most."""
        self._most = step_tokens if self.whole else context_length
        self._decoder = PictureDecoder()
        self._reading = threading.Lock()
        self._layouts: OrderedDict[bytes, list[list[int] | _Part]] = OrderedDict()
        self._pixels: OrderedDict[bytes, Pixels] = OrderedDict()
        self._kept = _Kept()
        self._under_way: Encoding | None = None
        self._prepared: tuple[bytes, Any] | None = None
        """The picture that was encoded last, or is, and libmtmd's chunks of it."""

    def read(self, data: bytes) -> list[list[int] | MediumPart]:
        picture = sha256(data).digest()
        with self._reading:
            layout = self._layouts.get(picture)
            if layout is None:
                layout = self._layouts[picture] = self._lay_out(picture, data)
                if len(self._layouts) > _KNOWN:
                    self._layouts.popitem(last=False)
        return [
            MediumPart(_stand_ins(picture, part), Encoding(picture, part, data, self._kept))
            if isinstance(part, _Part)
            else part
            for part in layout
        ]

    def encoding(self, span: Span) -> Encoding:
        """What a span's medium is made from."""
        content = span.medium.content if span.medium is not None else None
        if not isinstance(content, Encoding):
            raise TypeError("the medium isn't of this engine")
        return content

    def rows(self, wanted: Encoding) -> Rows:
        """What it is encoded to: shape (tokens, width). Raises Unfinished or MediumFailed."""
        part = wanted.part
        wanted.rows = wanted.rows if wanted.rows is not None else self._kept.get(wanted.picture, part.number)
        if wanted.rows is not None:
            return wanted.rows
        under_way = self._under_way
        if under_way is None:
            under_way = self._under_way = wanted
            self._sliced.begin(lambda: self._encode(wanted))
        try:
            self._sliced.work(_SLICE_SECONDS)
        except Exception as error:
            # One image must not end all requests, whatever is wrong with it.
            raise MediumFailed(f"an image can't be encoded: {error}") from error
        finally:
            if not self._sliced.running:
                self._under_way = None
        if under_way.rows is None:
            raise Unfinished
        return self.rows(wanted)

    def close(self) -> None:
        while self._sliced.running:
            self._sliced.work(_SLICE_SECONDS)
        self._decoder.close()
        if self._prepared is not None:
            mtmd.mtmd_input_chunks_free(self._prepared[1])
        mtmd.mtmd_free(self._context)

    def _encode(self, wanted: Encoding) -> None:
        """On the thread that is stopped and let go on."""
        chunk = self._chunk(wanted)
        if mtmd.mtmd_encode_chunk(self._context, chunk) != 0:
            raise MediumInvalid("libmtmd gives no reason")
        size = wanted.part.tokens * self.width
        rows = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._context), (size,))
        wanted.rows = rows.reshape(wanted.part.tokens, self.width).copy()
        self._kept.put(wanted.picture, wanted.part.number, wanted.rows)

    def _chunk(self, wanted: Encoding) -> Any:
        """Have the picture as libmtmd takes it: of one with many parts, all are encoded in a row."""
        if self._prepared is None or self._prepared[0] != wanted.picture:
            if self._prepared is not None:
                mtmd.mtmd_input_chunks_free(self._prepared[1])
                self._prepared = None
            pixels = self._pixels.pop(wanted.picture, None) or self._decoder.decode(wanted.data)
            self._prepared = (wanted.picture, self._chunks(pixels, pixels.data))
        images = [chunk for chunk in _each(self._prepared[1]) if not _is_text(chunk)]
        return images[wanted.part.number]

    def _lay_out(self, picture: bytes, data: bytes) -> list[list[int] | _Part]:
        pixels = self._decoder.decode(data)
        chunks = self._chunks(pixels, None)
        try:
            layout: list[list[int] | _Part] = []
            for chunk in _each(chunks):
                if _is_text(chunk):
                    layout.append(_tokens(chunk))
                else:
                    layout.append(_part(chunk, sum(isinstance(each, _Part) for each in layout)))
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
        longest = max(part.tokens for part in layout if isinstance(part, _Part))
        if longest > self._most:
            raise MediumInvalid(
                f"it takes {longest} tokens, and at most {self._most} can be taken in at once"
            )
        self._pixels[picture] = pixels
        while (
            sum(len(each.data) for each in self._pixels.values()) > pictures.PIXEL_BYTES
            and len(self._pixels) > 1
        ):
            self._pixels.popitem(last=False)
        return layout

    def _chunks(self, pixels: Pixels, data: bytes | None) -> Any:
        """Without its data a picture is only measured."""
        buffer = None if data is None else ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(pixels.width, pixels.height, buffer)
        chunks = mtmd.mtmd_input_chunks_init()
        text = mtmd.mtmd_input_text(_MARKER, len(_MARKER), False, True)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            failed = mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1) != 0
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
        if failed:
            mtmd.mtmd_input_chunks_free(chunks)
            raise MediumInvalid(f"the projector takes no image of {pixels.width} x {pixels.height} pixels")
        return chunks


def _each(chunks: Any) -> list[Any]:
    return [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(mtmd.mtmd_input_chunks_size(chunks))]


def _is_text(chunk: Any) -> bool:
    return bool(mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT)


def _tokens(chunk: Any) -> list[int]:
    """Those that the model's vocabulary has."""
    count = ctypes.c_size_t()
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return [token for token in tokens[: count.value] if token >= 0]


def _part(chunk: Any, number: int) -> _Part:
    tokens: int = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
    image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
    places = [mtmd.mtmd_image_tokens_get_decoder_pos(image, 0, index) for index in range(tokens)]
    grid = np.array([[place.t, place.y, place.x] for place in places], np.int32).T
    return _Part(number, tokens, grid, mtmd.mtmd_input_chunk_get_n_pos(chunk))


def _stand_ins(picture: bytes, part: _Part) -> list[int]:
    """Numbers for its positions, below all tokens: 31 bits each, so that another picture's are others."""
    stream = shake_128(picture + part.number.to_bytes(4)).digest(4 * part.tokens)
    numbers: list[int] = (np.frombuffer(stream, np.int32) | np.int32(-(2**31))).tolist()
    return numbers
