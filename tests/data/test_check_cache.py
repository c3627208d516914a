import os
import time
from pathlib import Path

import PIL
import pytest

from zoo.data.check_cache import CheckNotes


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b\udcff"):
        (folder / name).write_bytes(name.encode("utf8", "replace"))
        os.utime(folder / name, ns=(0, 123_456_789))
    return folder


def noted(root: Path, *names: str) -> CheckNotes:
    notes = CheckNotes(root)
    for name in names:
        notes.add(name, notes.look(name))
    notes.save()
    return CheckNotes(root)


def test_a_file_is_known_until_it_changes(root: Path) -> None:
    notes = noted(root, "a", "b\udcff")
    for name in ("a", "b\udcff"):
        facts = notes.look(name)
        assert facts is not None
        assert notes.is_good(name, facts)
        for place in range(3):
            changed = tuple(value + (number == place) for number, value in enumerate(facts))
            assert not notes.is_good(name, changed)  # type: ignore[arg-type]
    assert not notes.is_good("c", notes.look("a"))


def test_later_notes_add_to_earlier_ones(root: Path) -> None:
    noted(root, "a")
    notes = noted(root, "b\udcff")
    assert notes.is_good("a", notes.look("a"))


def test_what_is_not_known(root: Path) -> None:
    os.utime(root / "a", (time.time(), time.time()))
    notes = noted(root, "a")
    assert not notes.is_good("a", notes.look("a"))
    notes = noted(root, "gone", "nu\0ll")
    assert notes.look("gone") is None
    assert not notes.is_good("gone", None)


def test_another_pillow_looks_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(root, "a")
    monkeypatch.setattr(PIL, "__version__", "0.1")
    notes = CheckNotes(root)
    assert not notes.is_good("a", notes.look("a"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"root": 1, "pillow": 2, "good": 3}', '{"good": {"a": 1}}'])
def test_a_broken_note_is_as_if_it_were_not_there(root: Path, tmp_path: Path, content: str) -> None:
    noted(root, "a")
    (path,) = (tmp_path / "cache" / "zoo" / "checked").iterdir()
    path.write_text(content)
    notes = CheckNotes(root)
    assert not notes.is_good("a", notes.look("a"))
    again = noted(root, "a")
    assert again.is_good("a", again.look("a"))


def test_a_folder_that_cannot_be_written_to_costs_time_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    notes = noted(root, "a")
    assert not notes.is_good("a", notes.look("a"))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[" * 100_000, b'{"root": 1}', b"\xff", b"null", b'{"good": {"a": [1, 2, Infinity]}}',
        b'{"good": {"a": [NaN, 2, 3]}}', b'{"good": {"a": ["1", 2, 3]}}', b'{"good": {"a": [1, 2]}}', b'{"good": [1]}',
        b'{"good": {"a": [1e400, 2, 3]}}', b'{"good": {"a": [true, 2, 3]}}',
    ],
)  # fmt: skip
def test_a_damaged_note_counts_for_nothing(root: Path, content: bytes) -> None:
    noted(root, "a")
    (path,) = (root.parent / "cache" / "zoo" / "checked").iterdir()
    facts = f'{{"root": "{root}", "pillow": "{PIL.__version__}", '.encode()
    path.write_bytes(content.replace(b'{"good"', facts + b'"good"'))
    notes = CheckNotes(root)
    assert not notes.is_good("a", notes.look("a"))
