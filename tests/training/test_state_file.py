import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from zoo.errors import InputError
from zoo.training.state_file import read_state, write_state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.pt"


def test_a_state_is_read_as_it_was_written(path: Path) -> None:
    state = {"model": {"a": torch.arange(3)}, "position": {"epoch": 2}, "names": OrderedDict(a=(1, "x", None))}
    write_state(path, state)
    loaded = read_state(path)
    assert torch.equal(loaded.pop("model")["a"], torch.arange(3))
    assert loaded == {key: state[key] for key in ("position", "names")} | {"version": 2}


def test_any_flipped_bit_is_noticed(path: Path) -> None:
    write_state(path, {"model": {"a": torch.arange(300)}})
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 97), len(whole) - 1, len(whole) - 66]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"state\.pt cannot be used: it .*restore a copy of the file, or start a"):
            read_state(path)


def sign(path: Path) -> None:
    """Give a file the checksum that only the writer gives."""
    import hashlib

    content = bytearray(path.read_bytes())
    content[-2:] = (71).to_bytes(2, "little") + b"sha256:"
    path.write_bytes(bytes(content) + hashlib.sha256(content).hexdigest().encode())


def test_a_compressed_one_is_refused_before_it_is_unpacked(path: Path) -> None:
    plain = path.with_name("plain.pt")
    torch.save({"version": 2, "bomb": torch.zeros(30_000_000, dtype=torch.uint8)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert path.stat().st_size < 100_000
    sign(path)
    with pytest.raises(
        InputError,
        match=r"it is compressed; a saved run state never is\. The run cannot be resumed from it: restore a copy of "
        r"the file, or start a new run\.",
    ):
        read_state(path)


@pytest.mark.parametrize(
    ("version", "text"), [(1, "pt has format version 1; this zoo reads version 2"), ("2", "not the")]
)
def test_another_version_is_told(path: Path, version: object, text: str) -> None:
    write_state(path, {"version": version})
    with pytest.raises(InputError, match=text):
        read_state(path)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.parametrize("kind", ["torch", "list", "old", "pickle", "empty", "damaged", "pipe", "folder"])
def test_what_is_no_state_is_refused_and_not_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    if kind in ("torch", "list", "old"):
        torch.save({"torch": {"position": Evil()}, "list": [1, 2], "old": {"plan": "x"}}[kind], path)
        if kind != "old":
            sign(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes({"pickle": pickle.dumps(Evil(), 2), "empty": b"", "damaged": b"PK\x03\x04junk"}[kind])
    with pytest.raises(
        InputError,
        match=r"state\.pt cannot be used: .*start a new run\.$",
    ):
        read_state(path)
    assert not (tmp_path / "evil").exists()
