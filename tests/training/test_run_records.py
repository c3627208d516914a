import os

import pytest
from PIL import Image

from zoo.errors import InputError
from zoo.training.run_records import check_inside, read_run_file


@pytest.fixture
def folder(tmp_path):
    """A folder with a sound record of each kind."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "a.json").write_text('{"a": 1}')
    (path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    Image.new("RGB", (3, 2), "red").save(path / "a.png")
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.png"])
def test_a_sound_record_is_read_as_it_is(folder, name):
    assert read_run_file(folder, name) == (folder / name).read_bytes()
    check_inside(folder, name)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.png"])
@pytest.mark.parametrize("kind", ["link", "pipe", "other content"])
def test_what_is_none_is_refused(folder, name, kind, tmp_path):
    target = folder / name
    (tmp_path / name).write_bytes(target.read_bytes())
    target.unlink()
    if kind == "link":
        target.symlink_to(tmp_path / name)
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    with pytest.raises(InputError, match=rf"{name}' is not sent: .*send the model alone"):
        read_run_file(folder, name)
    if kind != "other content":
        with pytest.raises(InputError, match="is not sent"):
            check_inside(folder, name)


def test_a_damaged_picture(folder):
    content = bytearray((folder / "a.png").read_bytes())
    content[-20] ^= 1
    (folder / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png' is not sent: "):
        read_run_file(folder, "a.png")


def test_what_is_not_there_is_left_to_its_reader(folder):
    check_inside(folder, "none.json")
