import os
from pathlib import Path

import pytest

from zoo.errors import WeightsContentError
from zoo.files.checksums import SUMS, check_checksum, drop_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"abc" * 100)
    (tmp_path / "b").write_bytes(b"")
    write_checksums(tmp_path, ["b", "a"])
    return tmp_path


def test_what_is_listed_is_checked(folder: Path) -> None:
    lines = (folder / SUMS).read_text().splitlines()
    assert [line[64:] for line in lines] == ["  a", "  b"]
    assert lines[1][:64] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (folder / "c").write_bytes(b"new")
    for name in ("a", "b", "c", "absent"):
        check_checksum(folder / name)


@pytest.mark.parametrize("keeps_time", [False, True])
def test_one_flipped_bit_is_an_error_that_tells_the_way_out(folder: Path, keeps_time: bool) -> None:
    path = folder / "a"
    os.utime(path, ns=(0, 0))
    check_checksum(path)  # remembered from here on
    before = path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[150] ^= 1
    path.write_bytes(content)
    if keeps_time:
        os.utime(path, ns=(before, before))
    with pytest.raises(WeightsContentError, match=r"a does not match its checksum: its SHA-256 starts with \w{12}"):
        check_checksum(path)
    lines = (folder / SUMS).read_text().splitlines()
    (folder / SUMS).write_text("\n".join(line for line in lines if not line.endswith("  a")))
    check_checksum(path)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"abc  a\n", b"0" * 64 + b" a\n", b"# nothing\n" * 1000])
def test_lines_in_another_form_tell_nothing(folder: Path, content: bytes) -> None:
    (folder / SUMS).write_bytes(content)
    check_checksum(folder / "a")
    assert (folder / SUMS).read_bytes() == content  # it is left as it was


def test_without_the_file_nothing_is_checked(folder: Path) -> None:
    drop_checksums(folder)
    drop_checksums(folder)
    assert not (folder / SUMS).exists()
    check_checksum(folder / "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_of_that_name_is_not_opened(folder: Path) -> None:
    drop_checksums(folder)
    os.mkfifo(folder / SUMS)
    check_checksum(folder / "a")
