"""What a program of torch may hold before torch reads it.

`torch.export.load` unpickles what a file marks as pickled, evaluates its expressions, and turns names into code. So
only tensors as bytes, operators of torch, and arithmetic are let through, in an archive that is packed anew: what was
checked is what torch reads.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import InputError

_FILES = re.compile(
    r"data/(weights|constants)/((weight|tensor)_\d+|model_(weights|constants)_config\.json)|models/model\.json"
    r"|data/sample_inputs/model\.pt|extra/[\w.]+|archive_(format|version)|byteorder|\.data/\w+"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file)\w+(\.\w+)?|torch\.ops\.higher_order\.(cond|while_loop)"
    r"|torch\._?sym_\w+|math\.\w+|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|getitem|[gl][te]|eq|ne|and_|or_)"
)
_NAMES = re.compile(r"[\w.]*")
_MARKS = re.compile(r"[\w\s(),+\-*/%=<>'\".]*")
_WORDS = re.compile(
    r"[suz]\w*\d+|Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|Max|Min|Abs|FloorDiv|CleanDiv|CeilDiv|PythonMod"
    r"|Equality|Unequality|Eq|Ne|Lt|Le|Gt|Ge|StrictLessThan|StrictGreaterThan|LessThan|GreaterThan|And|Or|Not|Where"
    r"|positive|negative|nonnegative|integer|evaluate|True|False|true|false|inf|int_oo|oo"
)
_SPECS = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


def read_program(path: Path) -> tuple[io.BytesIO, dict[str, str]]:
    """Return a program as torch may read it, and its metadata.

    Raises:
        InputError: It is no program, is damaged, or holds something else than a graph of torch's operators.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries.values())
            if len(entries) != len(archive.infolist()) or not is_stored:
                raise _refuse(path, "its archive is not one that torch writes")
            if other := next((name for name in entries if not _FILES.fullmatch(name)), None):
                raise _refuse(path, f"it has a part {other!r}")
            parts = {name: archive.read(entry) for name, entry in entries.items()}
        _check_parts(path, parts)
    except (zipfile.BadZipFile, KeyError, AttributeError, TypeError, ValueError, RecursionError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not a whole program of torch.export: it is cut short, or a file of another kind. Export it "
            "again."
        ) from error
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(f"archive/{name}", content)
    clean.seek(0)
    facts = {name.removeprefix("extra/"): text.decode() for name, text in parts.items() if name.startswith("extra/")}
    return clean, facts


def _check_parts(path: Path, parts: dict[str, bytes]) -> None:
    for kind in ("weights", "constants"):
        for name, tensor in json.loads(parts[f"data/{kind}/model_{kind}_config.json"])["config"].items():
            if tensor["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", tensor["path_name"]):
                raise _refuse(path, f"its tensor {name!r} is pickled")
    if parts.get("data/sample_inputs/model.pt"):
        raise _refuse(path, "its sample inputs are pickled")
    for key, value in _list_texts(json.loads(parts["models/model.json"])):
        if (reason := _find_reason(key, value)) is not None:
            raise _refuse(path, f"{reason} {value[:80]!r}")


def _find_reason(key: str, value: str) -> str | None:
    """Return what a text in a program is, where it may not stand there; None if it may."""
    if key in ("target", "as_operator"):
        return None if _OPERATORS.fullmatch(value) else "the operator"
    if key in ("name", "as_name"):
        return None if _NAMES.fullmatch(value) else "the name"
    if key == "expr_str":
        words = re.findall(r"[A-Za-z_]\w*", value)
        is_plain = _MARKS.fullmatch(value) and not re.search(r"[\w)'\"]\s*\.\s*[A-Za-z_]", value)
        return None if is_plain and all(map(_WORDS.fullmatch, words)) else "the expression"
    if key in ("in_spec", "out_spec"):
        types = {text for name, text in _list_texts(json.loads(value)) if name == "type"}
        return None if types <= set(_SPECS) else "the structure"
    return "the object" if key in ("class_fqn", "as_custom_obj") else None


def _list_texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in JSON, with the key that it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _list_texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _list_texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def _refuse(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is refused: {reason}, which could run code. Only graphs of torch's own operators are run. Export the "
        "model again."
    )
