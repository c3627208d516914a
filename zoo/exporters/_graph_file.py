"""An exported file that is open: what it takes and gives, what it says of itself, and how to run it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import InputError


class Port(NamedTuple):
    """An input or an output of a graph.

    Attributes:
        name: As the graph calls it.
        dtype: As numpy calls it, such as `uint8`.
        shape: None for a side of any length.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join('N' if side is None else str(side) for side in self.shape)})"


@dataclass(frozen=True)
class GraphFile:
    """A graph that its runtime has loaded; nothing of it has been run.

    Attributes:
        path: Of the file.
        inputs: What it takes.
        outputs: What it gives, in order.
        facts: Its metadata as it is written in the file: JSON by key, such as `classes`; empty for a file that zoo has
            not written.
        run: Called with the array for its one input; returns the outputs.
    """

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    facts: Mapping[str, str]
    run: Callable[[Any], Sequence[Any]]


def refuse_damaged(path: Path, runtime: str, error: Exception) -> InputError:
    """Return the error for a file that its runtime does not take, with the first line that tells of the file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]  # of OpenVINO's own code
    reason = next(iter([*telling, *lines[-1:]]), type(error).__name__)[:300].rstrip(".: ")
    return InputError(f"{path} cannot be run by {runtime}: {reason}. It is damaged, or of another format.")
