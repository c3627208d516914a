"""What the benchmarks share: contenders in processes of their own, in turns; medians, ratios, and where they are kept.

A script is run twice over: as the command, which imports no torch and only starts contenders, and as one contender,
which prints one line of JSON. So peak memory, threads and imports are each contender's own.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

Result = dict[str, Any]
T = TypeVar("T")

MARK = "benchmark-result:"
PACKAGES = ("zoo-finetune", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
CHECKED = ("torchmetrics", "onnxruntime", "pydantic", "rich", "typer")
PEERS = ("fastai", "lightning", "transformers", "libreyolo")
CONSOLE = Console(width=None if sys.stdout.isatty() else 140)


def main_or_part(main: Callable[[], None], parts: Mapping[str, Callable[..., Result]]) -> None:
    """Run the command, or the one contender that the command line asks for."""
    if sys.argv[1:2] != ["--part"]:
        main()
        return
    result = parts[sys.argv[2]](**json.loads(sys.argv[3]))
    print(MARK + json.dumps(result | {"peak_mb": _peak_mb(), "gpu_peak_mb": _gpu_peak_mb()}), flush=True)


def run_part(
    name: str, options: Mapping[str, Any], *, threads: int, cache: Path | None = None, limit: float | None = None
) -> Result:
    """Run one contender of this script in a fresh process.

    Args:
        name: Of the contender, a key of `main_or_part`'s parts.
        options: Its keyword arguments, plain values.
        threads: For every library that computes.
        cache: Folder for what it keeps from one run to the next; None: the user's own.
        limit: Seconds after which it is ended, with all processes that it started; None: it may take its time.

    Returns:
        What the contender returned, `peak_mb` of its process and `gpu_peak_mb`; `{"failed": text}` if it failed.
    """
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    kept = {"XDG_CACHE_HOME": str(cache), "MPLCONFIGDIR": f"{cache}-matplotlib"} if cache else {}  # not fonts anew
    command = [sys.executable, sys.argv[0], "--part", name, json.dumps(options)]
    try:
        code, out, err = _run_group(command, {**os.environ, **limits, **quiet, **kept}, limit)
    except subprocess.TimeoutExpired as error:
        return {"failed": f"it was ended after its limit of {limit:.0f} s", "log": _last_lines(error.stderr or b"")}
    lines = [line for line in out.splitlines() if line.startswith(MARK)]
    if code or not lines:
        text = err.strip() or out.strip() or f"exit code {code}"
        return {"failed": text.splitlines()[-1][-300:], "log": _last_lines(text)}
    result: Result = json.loads(lines[-1].removeprefix(MARK))
    return result


def _run_group(command: Sequence[str], environment: Mapping[str, str], limit: float | None) -> tuple[int, str, str]:
    """Run a command in a process group of its own, and return exit code and output; the group ends with it.

    Raises:
        TimeoutExpired: It ran past its limit.
    """
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **options) as process:
        try:
            out, err = process.communicate(timeout=limit)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def _last_lines(text: str | bytes) -> str:
    written = text.decode(errors="replace") if isinstance(text, bytes) else text
    return "\n".join(written.strip().splitlines()[-30:])


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep so many processes computing at a lower priority (nice 5), as what a laptop does beside; they end with it."""
    command = ["nice", "-n", "5", sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


class Watch:
    """Seconds since it was made, when each step and each epoch, with its validation, was over, and what that gave."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.steps: list[float] = []
        self.epochs: list[float] = []
        self.scores: list[float | None] = []

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self.began

    def step(self, *_: Any) -> None:
        """Note that a step is over."""
        self.steps.append(self.seconds)

    def epoch(self, score: float | None = None) -> None:
        """Note that an epoch is over, and its score on the validation data."""
        self.epochs.append(self.seconds)
        self.scores.append(score)

    def to_dict(self) -> Result:
        """Return the times and the scores; the last is that of the run."""
        return {"steps": self.steps, "epochs": self.epochs, "scores": self.scores}


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value."""

    median: float
    least: float
    most: float

    def __format__(self, spec: str) -> str:
        if not isfinite(self.median):
            return "–"
        return f"{self.median:{spec}} ({self.least:{spec}}..{self.most:{spec}})"


def spread(values: Iterable[float]) -> Spread:
    """Return median, least and most of the values that are numbers."""
    found = [value for value in values if value is not None and isfinite(value)]
    return Spread(median(found), min(found), max(found)) if found else Spread(*[float("nan")] * 3)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the ratios of runs that were neighbours."""
    return spread(a / b for a, b in zip(ours, theirs, strict=False))


def in_turns(groups: Sequence[Sequence[T]], runs: int, run: Callable[[T, int], Result]) -> dict[T, list[Result]]:
    """Run contenders in turns, every other round backwards, and return the results of each.

    Args:
        groups: Contenders; those of a group run one after the other in their order.
        runs: Rounds.
        run: Runs a contender in a round.
    """
    results: dict[T, list[Result]] = {turn: [] for group in groups for turn in group}
    for number in range(runs):
        for group in groups if number % 2 == 0 else reversed(groups):
            for turn in group:
                with CONSOLE.status(f"run {number + 1} of {runs}: {turn}"):
                    result = run(turn, number)
                results[turn].append(result)
                if "failed" in result:
                    CONSOLE.print(f"{turn}: {result['failed']}", markup=False)
    return results


def values_of(results: Sequence[Result], key: str) -> list[float]:
    """Return one number of each run; not a number where a run failed or does not know it."""
    return [float("nan") if result.get(key) is None else float(result[key]) for result in results]


def installed(names: Sequence[str]) -> tuple[str, ...]:
    """Return those packages that are installed."""
    return tuple(name for name in names if _version(name))


def common_options(description: str | None, *, runs: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=runs, help="runs of each contender, in turns")
    parser.add_argument("--threads", type=int, default=_cores(), help="of every contender")
    parser.add_argument("--full", action="store_true", help="everything, which takes hours on a few cores")
    parser.add_argument("--only", nargs="+", help="only contenders with one of these words in their names")
    return parser


def chosen_only(names: Iterable[str], words: Sequence[str] | None) -> list[str]:
    """Return the names that have one of the words in them; all of them if there are no words."""
    return [name for name in names if not words or any(word in name for word in words)]


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Sequence[str] = ()) -> None:
    """Print a table and what has to be known to read it."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    CONSOLE.print(table)
    for note in notes:
        CONSOLE.print(f"- {note}", markup=False, highlight=False)


def save(name: str, options: argparse.Namespace, results: Any, *, folder: Path | None = None, **facts: Any) -> Path:
    """Write results with machine, versions and commit to `benchmarks/results`, or another folder, and say where."""
    now, machine = datetime.now(UTC), describe_machine()
    hardware = machine["gpu"] or f"{machine['cores']}-core-cpu"
    written = {
        "benchmark": name,
        "date": now.isoformat(timespec="seconds"),
        "machine": machine,
        "versions": {package: version for package in PACKAGES + PEERS + CHECKED if (version := _version(package))},
        "commit": _commit(),
        "options": vars(options),
        **facts,
        "results": results,
    }
    folder = folder or Path(__file__).parent / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}-{hardware.replace(' ', '-')}-{name}.json"
    path.write_text(json.dumps(written, indent=1, default=str) + "\n")
    CONSOLE.print(f"written to {path}", markup=False, highlight=False)
    return path


def describe_machine() -> dict[str, Any]:
    """Return what a time depends on."""
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": _cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_at_end": [round(value, 2) for value in os.getloadavg()],  # more than our own: others computed too
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peak_mb() -> float:
    """Return the most memory that this process, or a process that it waited for, had at a time."""
    own = _first_line("/proc/self/status", "VmHWM")  # a process's own: ru_maxrss begins with that of its parent
    unit = 1 if sys.platform == "darwin" else 1024
    kibibytes = float(own.split()[0]) if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024
    return round(kibibytes * 1024 / 1e6, 1)


def _gpu_peak_mb() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return round(torch.cuda.max_memory_allocated() / 1e6, 1)


def _gpu() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return None
    return names[0].strip() or None


def _first_line(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit, with `+` if files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return commit + "+" * bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None
