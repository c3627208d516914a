import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.files import cache as local_cache
from zoo.files.cache import cache_folder, digest_file, sweep_cache

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where digests are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "zoo" / "hashed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(CONTENT)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read to be hashed."""
    names: list[str] = []
    real = hashlib.file_digest

    def watch(file: object, name: str) -> object:
        names.append(Path(file.name).name)  # type: ignore[attr-defined]
        return real(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", watch)
    return names


def test_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/zoo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "zoo"


def test_a_file_is_hashed_once(path: Path, folder: Path, hashed: list[str]) -> None:
    assert [digest_file(path) for _ in range(3)] == [SHA256] * 3
    assert hashed == ["a.safetensors"]
    (note,) = folder.iterdir()
    facts = {
        "path": str(path),
        "size": 7000,
        "mtime_ns": LONG_AGO * 10**9,
        "inode": path.stat().st_ino,
        "ctime_ns": path.stat().st_ctime_ns,
    }
    assert json.loads(note.read_text()).items() > (facts | {"sha256": SHA256}).items()
    assert digest_file(path, again=True) == SHA256
    assert len(hashed) == 2


def test_a_link_is_the_file_it_leads_to(path: Path, hashed: list[str]) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert digest_file(path) == digest_file(link) == SHA256
    assert hashed == ["a.safetensors"]


@pytest.mark.parametrize("what", ["content", "size", "inode"])
def test_a_changed_file_is_hashed_again(path: Path, hashed: list[str], what: str) -> None:
    digest_file(path)
    if what == "content":
        path.write_bytes(CONTENT[:-1] + b"!")
    elif what == "size":
        path.write_bytes(CONTENT + b"!")
        os.utime(path, (LONG_AGO, LONG_AGO))
    else:
        other = path.with_name("other")
        other.write_bytes(CONTENT[:-1] + b"?")
        os.utime(other, (LONG_AGO, LONG_AGO))
        other.replace(path)
    assert digest_file(path) == hashlib.sha256(path.read_bytes()).hexdigest() != SHA256
    assert len(hashed) == 2


def test_a_file_that_has_just_changed_is_not_remembered(path: Path, folder: Path, hashed: list[str]) -> None:
    os.utime(path)
    assert digest_file(path) == digest_file(path) == SHA256
    assert len(hashed) == 2
    assert not folder.exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([{"path": "a", "size": 1, "mtime_ns": 0}, {"path": "a", "size": 2, "mtime_ns": 0}])
    monkeypatch.setattr(local_cache, "_identify", lambda path: next(found))
    assert digest_file(path) == SHA256
    assert not folder.exists()


@pytest.mark.parametrize(
    "note", [b"", b"[]", b"{}", b'{"sha256": 1}', b'{"sha256": "0"}', b"\xff", b"null", b"1", b"[" * 100_000]
)
def test_a_damaged_note_counts_for_nothing(path: Path, folder: Path, note: bytes) -> None:
    digest_file(path)
    (written,) = folder.iterdir()
    right = written.read_bytes()
    written.write_bytes(note)
    assert digest_file(path) == SHA256
    assert written.read_bytes() == right


def test_a_note_with_one_flipped_bit_counts_for_nothing(path: Path, folder: Path) -> None:
    digest_file(path)
    (written,) = folder.iterdir()
    right = written.read_bytes()
    for place in range(len(right)):
        for bit in (1, 4):
            written.write_bytes(right[:place] + bytes([right[place] ^ bit]) + right[place + 1 :])
            assert digest_file(path) == SHA256
    assert written.read_bytes() == right


def test_a_note_that_is_a_pipe_is_not_waited_for(path: Path, folder: Path) -> None:
    digest_file(path)
    (written,) = folder.iterdir()
    written.unlink()
    os.mkfifo(written)
    assert digest_file(path) == SHA256


def test_a_folder_that_cannot_be_made_costs_only_time(path: Path, folder: Path, hashed: list[str]) -> None:
    folder.parent.parent.write_bytes(b"a file")
    assert digest_file(path) == digest_file(path) == SHA256
    assert len(hashed) == 2


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "absent")


def test_processes_at_once_agree(path: Path, folder: Path) -> None:
    code = f"from zoo.files.cache import digest_file as f; print(*{{f({str(path)!r}, again=True) for _ in range(99)}})"
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in running] == [SHA256] * 3
    (note,) = folder.iterdir()
    assert json.loads(note.read_text())["sha256"] == SHA256


def test_only_old_drafts_are_swept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for place in ("", "hashed", "features/0123"):
        folder = cache_folder() / place
        folder.mkdir(parents=True, exist_ok=True)
        for name in (".a.json.0123abcd.tmp", ".b.json.0123abcd.tmp", "c.json"):
            (folder / name).write_text("{")
            if name != ".b.json.0123abcd.tmp":
                os.utime(folder / name, (time.time() - 2 * 24 * 3600,) * 2)
    sweep_cache()
    left = sorted(str(path.relative_to(cache_folder())) for path in cache_folder().rglob("*") if path.is_file())
    kept = (".b.json.0123abcd.tmp", "c.json")
    assert left == sorted(f"{place}{name}" for place in ("", "hashed/", "features/0123/") for name in kept)
