import json
import math
from pathlib import Path

import pytest

from zoo.files.json import dump_json, parse_object, read_object


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"classes": ["Katze", "Ü"], "size": 224, "inner": {"size": 1}}', "utf8")
    assert read_object(tmp_path / "a.json") == {"classes": ["Katze", "Ü"], "size": 224, "inner": {"size": 1}}
    (tmp_path / "a.json").write_bytes(b'{"a": "' + b"x" * 100 + b'"}')
    assert read_object(tmp_path / "a.json", max_bytes=109)
    with pytest.raises(ValueError, match="longer than 108 bytes"):
        read_object(tmp_path / "a.json", max_bytes=108)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b'"name"', "expected a JSON object, got str"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'{"inner": {"a": 1, "a": 2}}', "duplicate key 'a'"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer string conversion"),
        (b"{'a': 1}", "property name"),
    ],
)
def test_anything_else_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_object(text)


def test_what_is_written_is_json_for_every_reader() -> None:
    value = {"loss": math.nan, "rows": [(1, math.inf), {"a": -math.inf}], "path": Path("x"), "name": "é", "n": 1.5}
    text = dump_json(value)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": None, "rows": [[1, None], {"a": None}], "path": "x", "name": "é", "n": 1.5
    }  # fmt: skip
    assert text.isascii()
    assert "é" in dump_json(value, ascii_only=False)
    assert dump_json({"a": 1}, indent=1) == '{\n "a": 1\n}'
