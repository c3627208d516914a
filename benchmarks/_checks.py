"""Checks of a machine: each in a process of its own and under a limit; what fails is a row and ends nothing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _measure import CONSOLE, Result, run_part, show

COLUMNS = ("check", "what came out", "images/s", "by hand", "ratio", "peak, MB", "by hand", "seconds")
LEAST_SECONDS = 5  # with less time left, a check is not begun


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: For people.
        part: A key of `main_or_part`'s parts. It returns `text`, what came out, and `passed`; `skipped` instead of both
            says why it cannot be done here.
        limit: Seconds after which it is ended.
        options: Keyword arguments of the part.
    """

    name: str
    part: str
    limit: float
    options: Mapping[str, Any] = field(default_factory=dict)


def run_checks(checks: Sequence[Check], *, total: float, threads: int, cache: Path) -> list[Result]:
    """Run checks one after the other, and return a result for each, whatever happens in it.

    Args:
        checks: In their order.
        total: Seconds that all of them may take; no check runs past it.
        threads: Of each.
        cache: Folder for what is kept on disk; to begin with, it is empty.
    """
    began, results = time.monotonic(), []
    for check in checks:
        start = time.monotonic()
        limit = min(check.limit, total - (start - began))
        if limit < LEAST_SECONDS:
            result: Result = {"failed": f"no time was left: all checks together may take {total:.0f} s"}
        else:
            with CONSOLE.status(check.name):
                result = run_part(check.part, check.options, threads=threads, cache=cache, limit=limit)
        seconds = round(time.monotonic() - start, 1)
        results.append({"check": check.name, "options": dict(check.options), **result, "check_seconds": seconds})
        CONSOLE.print(f"{check.name}: {report(results[-1])}", markup=False, highlight=False)
    return results


def report(result: Result) -> str:
    """Say in one line what came out of a check."""
    if "failed" in result:
        return f"failed: {result['failed']}"
    if "skipped" in result:
        return f"not done: {result['skipped']}"
    return f"{'passed' if result['passed'] else 'failed'}: {result['text']}"


def has_passed(result: Result) -> bool:
    """Whether nothing is wrong; a check that cannot be done on this machine has not failed."""
    return "skipped" in result or ("failed" not in result and bool(result["passed"]))


def show_checks(title: str, results: Sequence[Result], notes: Sequence[str]) -> None:
    """Print all of them as one table."""
    show(title, COLUMNS, [_row(result) for result in results], notes)


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 if all checks have passed, else 1."""
    return 0 if results and all(map(has_passed, results)) else 1


def _row(result: Result) -> list[str]:
    numbers = [
        ("images_per_second", ",.1f"), ("by_hand_images_per_second", ",.1f"), ("ratio", ".2f"),
        ("memory_mb", ",.0f"), ("by_hand_memory_mb", ",.0f"), ("check_seconds", ".1f"),
    ]  # fmt: skip
    return [
        result["check"],
        report(result),
        *(format(result[key], spec) if key in result else "" for key, spec in numbers),
    ]
