import pickle

import pytest
import torch

from zoo.files.pickle_names import list_globals


class Asks:
    """Its pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_names_are_listed_and_nothing_is_called(tmp_path, protocol):
    path = tmp_path / "a"
    path.write_bytes(
        pickle.dumps({"exec": Asks(exec, "x = 1"), "again": [Asks(exec, "x = 2"), Asks(eval, "1")]}, protocol)
    )
    names = [name.replace("__builtin__", "builtins") for name in list_globals(path, is_zip=False)]
    assert names == ["builtins.exec", "builtins.eval"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_texts_that_are_used_again_are_not_taken_for_names(tmp_path, protocol):
    path = tmp_path / "a.pth"
    torch.save(
        {"bn.num_batches_tracked": torch.tensor(1), "LongStorage": "bn.num_batches_tracked"},
        path,
        pickle_protocol=protocol,
    )
    assert all(name.startswith(("torch.", "collections.")) for name in list_globals(path, is_zip=True))


def test_what_was_seen_before_damage_counts(tmp_path):
    path = tmp_path / "a"
    content = pickle.dumps([Asks(exec, "x = 1")], 2)
    path.write_bytes(content[:-3] + b"\x8a\xff\xff\xff\xff")
    assert [name.rpartition(".")[2] for name in list_globals(path, is_zip=False)] == ["exec"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02\x8b\xff\xff\xff\x7f", b"\x80\x02h\x07\x93."])
def test_damage_ends_in_nothing(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert set(list_globals(path, is_zip=False)) <= {"?.?"}
    assert list_globals(path, is_zip=True) == []
