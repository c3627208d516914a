import random
from io import BytesIO

import pytest
from PIL import ImageFile

from image_files import make_image, make_photo
from zoo.data import decode
from zoo.data.decode import examine, find_fault, read_image
from zoo.data.whole_jpeg import is_whole_jpeg
from zoo.errors import InputError

OPTIONS = [{}, {"subsampling": 0}, {"restart_marker_blocks": 3}, {"optimize": True}, {"mode": "L"}, {"mode": "CMYK"}]


def encode(mode="RGB", **options):
    file = BytesIO()
    make_image((96, 80)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def fault_of_decoding(data):
    try:
        read_image(data)
    except InputError as error:
        return str(error).partition("the image: ")[2]
    return None


def damage(data, draw):
    """Cut the end off, take some bytes out or put some in, or change a few, most of them before the pixels."""
    data, kind, place = bytearray(data), draw.random(), draw.randrange(2, len(data))
    if kind < 0.2:
        del data[place:]
    elif kind < 0.3:
        del data[place : place + draw.randrange(1, 40)]
    elif kind < 0.4:
        data[place:place] = bytes(draw.choice((0, 255, 0xD9, 0xDA)) for _ in range(draw.randrange(1, 9)))
    else:
        for _ in range(3):
            data[draw.randrange(2, 620 if kind < 0.9 else len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of damaged EXIF
def test_whatever_is_damaged_is_told_in_the_words_of_the_decoder(monkeypatch):
    monkeypatch.setattr(decode, "LARGE", 0)
    draw, files, faulty = random.Random(0), [encode(**options) for options in OPTIONS], 0
    for number in range(600):
        data = damage(files[number % len(files)], draw)
        expected = fault_of_decoding(data)
        assert find_fault(data) == expected
        faulty += expected is not None
    assert 150 < faulty < 450


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_whole_is_known_without_being_decoded(options):
    data = encode(**options)
    assert is_whole_jpeg(data)
    assert is_whole_jpeg(data + b"what some cameras append")
    assert not any(is_whole_jpeg(data[:length]) for length in range(0, len(data), 7))


def test_large_photos_are_not_decoded_to_be_checked(monkeypatch):
    photo, decoded, load = make_photo(), [], ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size) or load(image))
    assert examine(photo) == (None, "")
    assert decoded == [(8, 8)]
    assert find_fault(photo[:-2000]).startswith("damaged or truncated (image file is truncated")
    assert examine(make_photo(progressive=True)) == (None, "")
    assert (200, 150) in decoded  # in parts, of which each is over the whole image: an eighth of its sides
