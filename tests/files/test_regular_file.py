import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import InputError, ZooError
from zoo.files.regular_file import open_inside, open_regular, read_regular

ROOT = Path(__file__).parents[2]


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    assert read_regular(path, max_bytes=10) == b"0123456789"
    (tmp_path / "link").symlink_to("a.bin")
    with open_regular(tmp_path / "link") as file:
        assert file.read(3) == b"012"
    with pytest.raises(InputError, match=r"^it is longer than 9 bytes$"):
        read_regular(path, max_bytes=9)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", max_bytes=9)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match=r"^it is not a regular file$"):
            read_regular(path, max_bytes=9)
    for kind in (OSError, ValueError, ZooError):
        with pytest.raises(kind, match=r"^it is not a regular file$"):
            read_regular(tmp_path / "pipe", max_bytes=9)


def test_a_large_limit_asks_for_no_memory(tmp_path: Path) -> None:
    """In a process that may have 600 MB of addresses, a limit of 16 GB does not matter, and a file of 8 GB is told."""
    (tmp_path / "small").write_bytes(b"abc")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**33)
    code = (
        "import resource, sys; from zoo.files.regular_file import read_regular; "
        f"resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20, {resource.RLIM_INFINITY})); "
        "print(read_regular('small', max_bytes=2**34)); read_regular('large', max_bytes=2**34)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "b'abc'\n"
    assert "InputError: it has 8,589,934,592 bytes, too large for the available memory" in done.stderr


def test_inside_a_folder_no_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "a.txt").write_text("a")
    (folder / "link.txt").symlink_to("real/a.txt")
    (folder / "linked").symlink_to("real")
    (tmp_path / "latest").symlink_to("folder")
    for place in (folder, tmp_path / "latest"):
        with open_inside(place, "real/a.txt") as file:
            assert file.read() == b"a"
    for name in ("link.txt", "linked/a.txt", "../folder/real/a.txt"):
        with pytest.raises(InputError, match=r"^it is a symbolic link"), open_inside(folder, name):
            pass
    with pytest.raises(FileNotFoundError), open_inside(folder, "none"):
        pass
