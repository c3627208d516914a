"""Processes that load images import the script that started them: one without a guard would train in each of them.

Where processes are started anew and not forked (macOS, Windows, Python 3.14), each runs the main script from the top,
up to the line that started it. The parent waits for it, for ever if what it hands over is large.
"""

import ast
import multiprocessing
import sys
from multiprocessing.process import current_process
from pathlib import Path
from types import FrameType

from zoo.errors import InputError

ADVICE = (
    'Put the script\'s code under a guard:\n\n    if __name__ == "__main__":\n        zoo.finetune(...)\n\nor load '
    "images in the main process, with num_workers=0."
)


def refuse_in_worker() -> None:
    """End a process that is being started to load images, and runs the main script again in order to import it.

    Raises:
        SystemExit: It is one.
    """
    if getattr(current_process(), "_inheriting", False):
        raise SystemExit(f"a data-loading process re-ran the main script and was stopped. {ADVICE}")


def check_guard(num_workers: int, context: str | None = None) -> None:
    """Check that the main script can be imported by processes before any is started.

    Args:
        num_workers: How many are to be started.
        context: How: `fork`, `spawn` or `forkserver`; None: as the system, or the script, has chosen.

    Raises:
        InputError: Each of them would run the script from the top.
    """
    method = context or multiprocessing.get_start_method()
    if num_workers < 1 or method == "fork":
        return
    line = _find_line()
    if line is not None and not _is_guarded(*line):
        path, number = line
        raise InputError(
            f"num_workers is {num_workers}, and each data-loading process would run {path} again from the top (start "
            f"method {method!r}): line {number}, which starts them, is not guarded. {ADVICE}"
        )


def _find_line() -> tuple[str, int] | None:
    """Return file and line of the main script that runs now; None where processes do not run it again."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None and path is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is main.__dict__:
            return path, frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(path: str, number: int) -> bool:
    """Whether a line is passed by when the script is imported; also said where the file cannot be read as Python."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, ValueError, SyntaxError):
        return True
    return any(isinstance(node, ast.If) and _guards(node, number) for node in tree.body)


def _guards(node: ast.If, number: int) -> bool:
    """Whether an `if` on `__name__` has the line in it, or, above the line, ends the import."""
    parts = list(ast.walk(node.test))
    if not any(isinstance(part, ast.Name) and part.id == "__name__" for part in parts):
        return False
    is_within = node.lineno <= number <= (node.end_lineno or node.lineno)
    return is_within or (node.lineno < number and any(isinstance(part, ast.NotEq) for part in parts))
