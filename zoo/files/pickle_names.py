"""Names of the classes and functions that a pickle asks for, read without running it."""

import io
import pickletools
import zipfile
from collections import deque
from pathlib import Path
from typing import IO

MOST_PICKLES = 8  # in a file of torch before 1.6: four, and the places of the tensors
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING")


def list_globals(path: Path, is_zip: bool) -> list[str]:
    """Return the names in the order in which they are asked for, each once.

    Args:
        path: A file of torch.save.
        is_zip: Whether it is a zip file; files of torch before 1.6 are several pickles, one after the other.

    Returns:
        Names such as `os.system`; up to where the file is damaged.
    """
    names: dict[str, None] = {}
    try:
        with _open_pickle(path, is_zip) as stream:
            for _ in range(MOST_PICKLES):
                _collect(stream, names)
    except Exception:  # the end, or damage, of which a pickle has as many kinds as bytes; what was seen so far counts
        pass
    return list(names)


def _collect(stream: IO[bytes], names: dict[str, None]) -> None:
    """Follow one pickle: the texts on top of its stack, and those that it has put aside, become names."""
    top: deque[str | None] = deque([None, None], maxlen=2)
    memo: dict[int, str | None] = {}
    for operation, argument, _ in pickletools.genops(stream):
        code = operation.name
        if code == "GLOBAL":
            names[str(argument).replace(" ", ".")] = None
            top.append(None)
        elif code == "STACK_GLOBAL":
            names[".".join(part or "?" for part in top)] = None
            top.append(None)
        elif code == "MEMOIZE":
            memo[len(memo)] = top[-1]
        elif code.endswith("PUT"):
            memo[int(str(argument))] = top[-1]
        elif code.endswith("GET"):
            top.append(memo.get(int(str(argument))))
        elif code in _TEXTS:
            top.append(str(argument))
        elif operation.stack_after:
            top.append(None)


def _open_pickle(path: Path, is_zip: bool) -> IO[bytes]:
    if not is_zip:
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return io.BytesIO(archive.read(name))
