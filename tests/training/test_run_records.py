import os

import pytest
from PIL import Image

from zoo.errors import InputError
from zoo.training.run_records import check_inside, check_record, read_run_file


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


def test_a_damaged_plot_or_none(folder):
    content = bytearray((folder / "a.png").read_bytes())
    content[-20] ^= 1
    (folder / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png' is not sent: "):
        read_run_file(folder, "a.png")
    check_inside(folder, "none.json")


DATA = {"source": "d", "classes": ["a", "b"], "digest": "0", "files": {"train": {"x": "1"}}, "more": 1}


def test_what_a_run_writes_passes() -> None:
    check_record("data.json", DATA)
    check_record("run.json", {"status": "finished", "epoch": 1, "step": 2, "loss_sum": 0.0})
    check_record("other.json", None)


@pytest.mark.parametrize("value", [None, [], {}, 1, "x", [DATA], True])
def test_something_else_is_told(value: object) -> None:
    with pytest.raises(ValueError, match="source: Field required" if value == {} else "it is JSON, but not an object"):
        check_record("data.json", value)


@pytest.mark.parametrize("key", sorted(DATA.keys() - {"more"}))
@pytest.mark.parametrize("wrong", [1, {}, [], [1], {"a": 1}, True, 0.5, {"train": []}])
def test_wrong_types_are_told_by_name(key: str, wrong: object) -> None:
    if (key, wrong) == ("files", {}):
        return
    with pytest.raises(ValueError, match=f"^{key}"):
        check_record("data.json", DATA | {key: wrong})


@pytest.mark.parametrize("value", [None, [], {"status": 1}, {"epoch": -1}, {"step": "2"}])
def test_a_status_in_another_form(value: object) -> None:
    with pytest.raises(ValueError, match=":" if value else "not an object"):
        check_record("run.json", value)
