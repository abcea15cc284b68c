"""Files that are sent as images: read in a process of its own, which may end of them, but nothing else does."""

import io
import os

import pytest
from PIL import Image

from slm_runtime.engine.protocol import MediumInvalid
from slm_runtime.pictures import worker
from slm_runtime.pictures.decoder import PictureDecoder
from tests.support.pictures import picture


@pytest.fixture
def decoder():
    decoder = PictureDecoder()
    yield decoder
    decoder.close()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_the_process_reads_one_after_the_other_and_is_replaced(decoder, monkeypatch):
    pixels = decoder.decode(picture(0, width=7, height=9))
    assert (pixels.width, pixels.height, len(pixels.data)) == (7, 9, 3 * 7 * 9)
    with pytest.raises(MediumInvalid, match="none of JPEG"):
        decoder.decode(b"no image")
    os.kill(decoder._process.pid, 9)
    with pytest.raises(MediumInvalid, match="ended the process"):
        decoder.decode(picture(0))
    assert decoder.decode(picture(0)).width == 40
    monkeypatch.setattr(decoder, "_seconds", 0.0)
    with pytest.raises(MediumInvalid, match="longer than"):
        decoder.decode(picture(0, width=600, height=600))
    monkeypatch.setattr(decoder, "_seconds", 60.0)
    assert decoder.decode(picture(0)).width == 40


def test_it_is_as_it_is_meant_to_be_seen():
    half = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    half.paste((0, 0, 255, 255), (0, 0, 4, 4))
    seen = worker.decode(saved(half, "PNG"))
    assert (seen.getpixel((0, 0)), seen.getpixel((7, 0))) == ((0, 0, 255), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert worker.decode(saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (4, 8)


def test_of_one_that_moves_the_first_frame_is_seen():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        seen = worker.decode(saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True))
        assert seen.getpixel((4, 4)) == (255, 0, 0)


def test_large_ones_are_made_smaller_and_larger_ones_refused():
    assert worker.decode(saved(Image.new("RGB", (5000, 2000)), "JPEG")).size == (2048, 819)
    assert max(worker.decode(saved(Image.new("L", (3900, 3900)), "PNG")).size) == 2048
    with pytest.raises(worker.Unreadable, match="at most 16 million"):
        worker.decode(saved(Image.new("1", (8000, 8000)), "PNG"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("cut", [1, 20, 200])
def test_half_of_one_is_none(kind, cut):
    whole = picture(0, kind=kind)
    with pytest.raises(worker.Unreadable):
        worker.decode(whole[: len(whole) // 2 if cut == 200 else cut])


@pytest.mark.parametrize(("width", "height"), [(3, 40), (900, 8)])
def test_what_has_hardly_any_sides_is_refused(width, height):
    with pytest.raises(worker.Unreadable, match="each side"):
        worker.decode(picture(0, width=width, height=height))
