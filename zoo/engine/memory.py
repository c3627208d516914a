"""Memory: how many images fit at a time, how much a piece of work takes, and what to do when it has run out."""

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.data import is_out_of_memory, release_memory
from zoo.errors import InputError, TrainingError

MARGIN = 0.1  # of the free memory, which is left alone
SAMPLE_SECONDS = 0.002
HIGH_WATER_SLACK = 2**22  # bytes by which a high-water mark that was just reset may exceed what is in use
CGROUPS = Path("/sys/fs/cgroup")
CPU = torch.device("cpu")


class RunningStatistics:
    """The buffers of the modules that train, such as the running statistics of norms, to be put back after a failure.

    Args:
        network: Its modes count when this is made.
    """

    def __init__(self, network: nn.Module) -> None:
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for module in network.modules():
            for buffer in module.buffers(recurse=False) if module.training else ():
                groups.setdefault((buffer.device, buffer.dtype), []).append(buffer)
        self._groups = [(now, [buffer.clone() for buffer in now]) for now in groups.values()]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember what they are now."""
        for now, kept in self._groups:
            torch._foreach_copy_(kept, now)

    @torch.no_grad()
    def restore(self) -> None:
        """Make them again what they were."""
        for now, kept in self._groups:
            torch._foreach_copy_(now, kept)


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Let a model be tried: its buffers, gradients and modes, and the random numbers to come, stay what they were."""
    tensors = [*model.parameters(), *model.buffers()]
    devices = sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type != "cpu"})
    kind = next((tensor.device.type for tensor in tensors if tensor.device.type != "cpu"), "cuda")
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            yield
    finally:
        for module, mode in modes:
            module.training = mode  # not by train(): each module has its own
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


class Found(NamedTuple):
    """A size of micro-batches that fits.

    Attributes:
        size: Images per micro-batch; the batch's own number if all of it fits.
        text: The arithmetic, in a sentence.
    """

    size: int
    text: str


def find_micro_batch_size(
    try_step: Callable[[int], None],
    batch_size: int,
    *,
    device: torch.device,
    free_memory: int | None = None,
    margin: float = MARGIN,
    reserve: int = 0,
) -> Found:
    """Find how many images of a batch fit at a time, before anything is learnt.

    A GPU says when its memory is full, so sizes are tried there, the whole batch first. The machine's own memory has no
    such end: the system stops the process. Two small numbers of images are measured there, and a line is drawn.

    Args:
        try_step: Runs the worst case of a training step and of scoring on so many images, without the optimizer's
            step; inside `preserve_state`. It must not wait for other processes: each finds a size, and the least
            counts.
        batch_size: Images per batch.
        device: Where it runs.
        free_memory: Bytes that are there; None: as `measure_free_memory` finds.
        margin: Share of them that is left alone.
        reserve: Bytes that are taken only later, by the optimizer's state, say.

    Raises:
        TrainingError: Not even one image fits.
    """
    if batch_size < 1 or not 0 <= margin < 1 or reserve < 0:
        raise InputError(
            f"batch_size is {batch_size}, margin {margin}, reserve {reserve}; expected 1 or more, a number from 0 to "
            "below 1, and 0 or more."
        )
    if device.type == "cpu":
        return _find_by_line(try_step, batch_size, free_memory, margin, reserve)
    free = measure_free_memory(device) if free_memory is None else free_memory
    return _find_by_trial(try_step, batch_size, device, free, margin, reserve)


def choose_size(batch_size: int, most: int) -> int:
    """Return a micro-batch size for a batch: even parts if that costs less than half of what fits, else within one.

    Args:
        batch_size: Images per batch.
        most: Images that fit, 1 or more.
    """
    if most >= batch_size:
        return batch_size
    alike = max(size for size in range(1, most + 1) if batch_size % size == 0)
    return alike if 2 * alike > most else math.ceil(batch_size / math.ceil(batch_size / most))


def measure_free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device, with those that torch holds unused.

    In the machine's own memory the limit of the control group counts, too, and processes that were launched together
    share it evenly.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    free = int(psutil.virtual_memory().available)
    limits = [free, *(left for folder in _own_groups() if (left := _left_in_group(folder)) is not None)]
    return min(limits) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass
class Peak:
    """Memory of a piece of work.

    Attributes:
        start: Bytes in use before it.
        bytes: Most bytes in use at any time; known when the work is done.
    """

    start: int = 0
    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the most memory that is in use while a block runs.

    On a GPU it is what tensors occupy; on the CPU, the resident memory of the process, by the system's high-water mark
    where that can be reset (Linux), else by looking every two milliseconds, which may miss a short peak.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        peak = Peak(torch.cuda.memory_allocated(device))
        try:
            yield peak
        finally:
            torch.cuda.synchronize(device)
            peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    read = torch.mps.driver_allocated_memory if device.type == "mps" else _resident
    peak = Peak(read())
    if device.type == "cpu" and _reset_high_water():
        try:
            yield peak
        finally:
            peak.bytes = _status("VmHWM") or _resident()
        return
    with _sampling(read, peak):
        yield peak


def _find_by_line(
    try_step: Callable[[int], None], batch_size: int, free_memory: int | None, margin: float, reserve: int
) -> Found:
    few = min(2, batch_size)  # norms may refuse to learn from one image
    more = min(4 * few, batch_size)
    try_step(few)  # the first step allocates what stays: gradients, and the workspace of the libraries
    low = _peak_of(try_step, few)
    release_memory(CPU)
    base = _resident()
    free = measure_free_memory(CPU) if free_memory is None else free_memory
    budget = int(free * (1 - margin)) - reserve
    taken = max(0, low - base)
    fixed, each = 0.0, taken / few
    if more > few and more * each <= budget:
        each = max(0.0, (_peak_of(try_step, more) - low) / (more - few))
        fixed = max(0.0, taken - few * each)
    most = batch_size if fixed + batch_size * each <= budget else math.floor((budget - fixed) / each)
    arithmetic = f"{_gib(fixed)} + {_gib(each)} each{_later(reserve)}; {_gib(free)} are free"
    if most < 1:
        raise _too_little(arithmetic)
    size = choose_size(batch_size, most)
    return Found(size, f"{_name(size, batch_size)}: {arithmetic}")


def _find_by_trial(
    try_step: Callable[[int], None], batch_size: int, device: torch.device, free: int, margin: float, reserve: int
) -> Found:
    base = _held(device)
    budget = int(free * (1 - margin)) - reserve
    sizes = sorted({choose_size(batch_size, most) for most in range(1, batch_size + 1)})
    taken: dict[int, float] = {}

    def fits(size: int) -> bool:
        taken[size] = _try_on_device(try_step, size, device) - base
        return taken[size] <= budget

    below, above = 0, len(sizes)  # the first `below` sizes fit; those from `above` on do not
    place = above - 1
    while below < above:
        below, above = (place + 1, above) if fits(sizes[place]) else (below, place)
        place = (below + above) // 2
    release_memory(device)
    if not below:
        raise _too_little(f"{_gib(free)} are free{_later(reserve)}")
    size = sizes[below - 1]
    return Found(size, f"{_name(size, batch_size)}: {_gib(taken[size])}{_later(reserve)}; {_gib(free)} are free")


def _try_on_device(try_step: Callable[[int], None], size: int, device: torch.device) -> float:
    """Return the bytes that torch holds at most during a step; infinite if they were not there."""
    release_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        try_step(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        most = math.inf
    else:
        most = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else _held(device)
    return most


def _held(device: torch.device) -> int:
    """Return the bytes in tensors on a GPU; what torch holds unused is counted as free."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else 0


def _peak_of(try_step: Callable[[int], None], size: int) -> int:
    release_memory(CPU)
    with peak_memory(CPU) as peak:
        try_step(size)
    return peak.bytes


def _too_little(arithmetic: str) -> TrainingError:
    return TrainingError(
        f"micro_batch_size=auto: not even one image fits in memory ({arithmetic}). Use a smaller image_size, train "
        "fewer layers, use precision=bf16, or choose a smaller model."
    )


def _name(size: int, batch_size: int) -> str:
    return (
        f"the whole batch of {batch_size} images"
        if size == batch_size
        else f"micro-batches of {size} of {batch_size} images"
    )


def _later(reserve: int) -> str:
    return f" + {_gib(reserve)} for the optimizer" if reserve else ""


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _reset_high_water() -> bool:
    """Set the system's high-water mark of this process to what is in use; return whether that worked."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    mark, now = _status("VmHWM"), _status("VmRSS")
    return mark is not None and now is not None and mark <= now + HIGH_WATER_SLACK


def _status(key: str) -> int | None:
    """Return a line of the system's account of this process, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


@contextmanager
def _sampling(read: Callable[[], int], peak: Peak) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            peak.bytes = max(peak.bytes, read())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peak.bytes = max(peak.bytes, peak.start, read())


def _own_groups() -> list[Path]:
    """Return the folders of the control groups that may limit this process: inside a container, and outside of one."""
    folders = [CGROUPS, CGROUPS / "memory"]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                folders.append(CGROUPS / controllers / path.lstrip("/"))
    return folders


def _left_in_group(folder: Path) -> int | None:
    """Return the bytes that a control group has left, cached files among them; None if it sets no limit.

    Source:
        The kernel's documents: memory.max, memory.current and memory.stat of version 2 of control groups,
        memory.limit_in_bytes and memory.usage_in_bytes of version 1.
    """
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        if most == "max":
            return None
        amounts = dict(line.rsplit(" ", 1) for line in lines)
        cached = int(
            amounts.get("total_inactive_file", amounts.get("inactive_file", 0))
        )  # first: with groups inside it
        return max(0, int(most) - used + cached)
    return None
