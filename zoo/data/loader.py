"""From images to batches: which image comes when, transforms that repeat, and processes that load."""

import atexit
import functools
import gc
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from zoo.data.prefetch import submit_ahead
from zoo.data.sampler import EpochSampler, count_repeated, mix_seeds
from zoo.data.stopping import leave_stopping_to_parent
from zoo.data.user_transform import UserTransform
from zoo.data.worker_guard import check_guard
from zoo.errors import DataError, InputError

FEW_IMAGES = 500  # starting a process takes longer than loading these
MOST_WORKERS = 8
BATCHES_AHEAD = 2  # that threads make while one is worked on

_drawing = threading.Lock()  # held by the thread whose random numbers the default generator gives


class Readable(Protocol):
    """What batches are made of."""

    @property
    def names(self) -> Sequence[str]:
        """What to call each image."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, /) -> tuple[Image.Image, int]:
        """Return the image, RGB, and its class."""
        ...


class ReadError(DataError):
    """An image could not be read while it was loaded.

    A process that loads hands its errors over as text with its own traceback; only the message is kept of it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{__name__}.ReadError: ")[2].strip())


class Samples(Dataset[tuple[Tensor, int]]):
    """Images as tensors, for a `DataLoader`.

    Args:
        images: Gives images and targets.
        transform: Turns an image into a tensor; may draw from torch's default generator.
        seed: An image of an epoch is changed in the same way whenever it is loaded, by whichever process.
        draws: Whether the transform draws; if not, threads need not wait for each other.
        user: A transform of the user's own, which comes before.
    """

    def __init__(
        self,
        images: Readable,
        transform: Callable[[Image.Image], Tensor],
        seed: int = 0,
        *,
        draws: bool = True,
        user: UserTransform | None = None,
    ) -> None:
        self.images, self.transform, self.seed, self.draws, self.user = images, transform, seed, draws, user
        # what is the user's may draw from any generator, or be no good at threads
        self.in_threads = bool(getattr(images, "in_threads", False)) and user is None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int | tuple[int, int]) -> tuple[Tensor, int]:
        """Return tensor and target of an `(index, epoch)`; an index alone means epoch 0."""
        index, epoch = place if isinstance(place, tuple) else (place, 0)
        if not self.in_threads:
            with seeded_sample(self.seed, epoch, index, everywhere=True):
                image, target = self.images.read(index)
                if self.user is not None:
                    image = self.user.change_image(image, self.images.names[index])
                return self.transform(image), target
        with naming_faults():
            image, target = self.images.read(index)
        if not self.draws:
            return self.transform(image), target
        with seeded_sample(self.seed, epoch, index):
            return self.transform(image), target


@contextmanager
def seeded_sample(seed: int, epoch: int, index: int, *, everywhere: bool = False) -> Iterator[None]:
    """Draw from torch's default generator what belongs to these three numbers, and leave the generator as it was.

    One thread at a time: they share the generator. What needs no random numbers, such as decoding, is better done
    before.

    Args:
        seed: As the two that follow, decides what is drawn.
        epoch: Number of the epoch.
        index: Place of the image.
        everywhere: Whether Python's `random` and numpy's `np.random` draw so, too, as data sets of others may use them.
            A generator that a data set holds itself is not reached.

    Raises:
        ReadError: Instead of a `DataError`.
    """
    number = mix_seeds(seed, epoch, index)
    with _drawing:
        state = torch.get_rng_state()
        others = (random.getstate(), np.random.get_state()) if everywhere else None
        # Not torch.manual_seed: it would seed the GPU too, and dropout would be the same in every step.
        torch.default_generator.manual_seed(number)
        if others is not None:
            random.seed(number)
            np.random.seed(number % 2**32)
        try:
            with naming_faults():
                yield
        finally:
            torch.set_rng_state(state)
            if others is not None:
                random.setstate(others[0])
                np.random.set_state(others[1])


@contextmanager
def naming_faults() -> Iterator[None]:
    """Turn a `DataError` into a `ReadError`, which processes can hand over."""
    try:
        yield
    except DataError as error:
        raise ReadError(str(error)) from error


class ImageLoader(DataLoader[Any]):
    """A loader of `(images, targets)`.

    Attributes:
        epoch_sampler: Where the epoch is set. Take it before `accelerate` prepares the loader.
    """

    epoch_sampler: EpochSampler


def make_loader(
    images: Readable,
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> ImageLoader:
    """Make a loader of images `(B, 3, H, W)`, as the transform gives them but channels last, and targets `(B,)` int64.

    Args:
        images: Gives images and targets.
        transform: Turns an image into a tensor.
        batch_size: As all that follow: see `order_batches`.
        shuffle: For training.
        seed: Decides orders and random changes.
        num_workers: Processes that load.
        pin_memory: For a GPU.
    """
    return order_batches(
        Samples(images, transform, seed),
        len(images),
        collate,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def order_batches(
    samples: Dataset[Any],
    count: int,
    collate: Callable[[Sequence[Any]], Any],
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    num_workers: int,
    pin_memory: bool,
    views: int = 1,
    draw_weights: Sequence[float] | None = None,
    repeats: Sequence[float] | None = None,
) -> ImageLoader:
    """Make a loader whose batches do not depend on the number of processes that load.

    Args:
        samples: Gives the sample of an `(index, epoch)`.
        count: Number of images.
        collate: Makes a batch of samples.
        batch_size: Images per batch.
        shuffle: For training: an order of its own for each epoch, and no last batch of a single image, which batch
            norm cannot train on, if there are other batches.
        seed: Decides orders and random changes.
        num_workers: Processes that load; they live as long as the loader. 0: none.
        pin_memory: Whether batches are put where a GPU fetches them faster.
        views: As in `EpochSampler`.
        draw_weights: As in `EpochSampler`.
        repeats: As in `EpochSampler`.
    """
    _prepare_workers(num_workers)
    if count < 1:
        raise InputError("there are no images to load; expected one or more.")
    if batch_size < 1 or num_workers < 0:
        raise InputError(f"batch_size is {batch_size}, num_workers {num_workers}; expected 1 or more, and 0 or more.")
    images = count_repeated(repeats) if repeats is not None and shuffle else count
    single = shuffle and batch_size > 1 and images > batch_size and images % batch_size == 1
    order: dict[str, Any] = {"leave_out": int(single), "views": views, "draw_weights": draw_weights, "repeats": repeats}
    sampler = EpochSampler(count, shuffle=shuffle, seed=seed, **order)
    loader = ImageLoader(
        samples,
        batch_size=batch_size,
        sampler=_Order(sampler),
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(mix_seeds(seed)),  # so that torch's own stays as it is
    )
    loader.epoch_sampler = sampler
    return loader


def load_places(
    samples: Dataset[Any],
    batches: Sequence[Sequence[tuple[int, int]]],
    collate: Callable[[Sequence[Any]], Any],
    *,
    num_workers: int,
    pin_memory: bool,
    threads: int | None = None,
) -> Iterator[Any]:
    """Yield batches of the samples of these `(index, epoch)` places, in this order; see `order_batches`.

    Args:
        samples: Gives the sample of a place.
        batches: The places of each batch.
        collate: Makes a batch of samples.
        num_workers: Processes that load.
        pin_memory: Whether batches are put where a GPU fetches them faster.
        threads: Threads that load, if no processes do and the samples have `in_threads`: they start at once and
            decode while the network computes, which must not draw from torch's generator of the CPU meanwhile if
            transforms do. 0: none; None: one per core.
    """
    if num_workers == 0 and not pin_memory and getattr(samples, "in_threads", False) and threads != 0:
        return _load_in_threads(samples, batches, collate, threads or count_cores())
    _prepare_workers(num_workers)
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=map(list, batches),
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # so that torch's own stays as it is
    )
    return iter(loader)


def default_workers(n_images: int, *, accelerator: bool | None = None) -> int:
    """Choose how many processes load images.

    Args:
        n_images: So few that starting processes takes longer than loading: none.
        accelerator: Whether a GPU computes, so that the cores are free to load: one process per core, up to 8. Else
            the network needs the cores, and every fourth one loads. None: whether this machine has one.
    """
    if n_images < FEW_IMAGES:
        return 0
    cores = count_cores()
    free = torch.accelerator.is_available() if accelerator is None else accelerator
    return min(cores, MOST_WORKERS) if free else min(cores // 4, MOST_WORKERS)


def count_cores() -> int:
    """Return how many cores this process may use, at least 1: its share, if a launcher started several."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def lay_channels_last(images: Any) -> Any:
    """Return images `(B, C, H, W)` laid out channels last, which convolutions are faster with; others as they are."""
    is_batch = isinstance(images, Tensor) and images.ndim == 4
    return images.contiguous(memory_format=torch.channels_last) if is_batch else images


class _Order(Sampler[tuple[int, int]]):
    """The sampler without `set_epoch`: accelerate would call it with a count of its own, wrong after a resume."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._sampler)


def collate(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Make a batch of tensors `(3, H, W)` and their targets; it lies channels last, as images do."""
    images: Any = default_collate([image.movedim(0, -1) for image, _ in samples])  # in a worker: in shared memory
    return images.movedim(-1, 1), torch.tensor([target for _, target in samples])


def _load_in_threads(
    samples: Any,
    batches: Sequence[Sequence[tuple[int, int]]],
    collate: Callable[[Sequence[Any]], Any],
    threads: int,
) -> Iterator[Any]:
    """Yield batches whose samples are made some batches ahead; the calling thread collates them."""
    ahead = BATCHES_AHEAD * max(map(len, batches), default=0)
    places = (place for batch in batches for place in batch)
    with closing(submit_ahead(samples.__getitem__, places, threads=min(threads, MOST_WORKERS), ahead=ahead)) as made:
        for batch in batches:
            yield collate([next(made).result() for _ in batch])


def _prepare_workers(num_workers: int) -> None:
    check_guard(num_workers)
    if num_workers:
        _end_loading_at_exit()


@functools.cache
def _end_loading_at_exit() -> None:
    """Have the processes that load ended with the program, which else waits for them: they leave SIGTERM to it."""
    atexit.register(_end_loading)


def _end_loading() -> None:
    for thing in gc.get_objects():  # whatever wraps a loader now, accelerate for example
        if type(thing) is _MultiProcessingDataLoaderIter and thing._worker_init_fn is _start_worker:
            thing._shutdown_workers()


def _start_worker(worker: int) -> None:
    leave_stopping_to_parent()
    warnings.filterwarnings("ignore", module="PIL")  # of damaged EXIF, from each process again
