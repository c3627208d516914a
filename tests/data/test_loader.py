import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from PIL import Image

from image_files import make_image
from zoo.data.loader import (
    EpochSampler,
    ReadError,
    Samples,
    collate,
    count_cores,
    default_workers,
    lay_channels_last,
    load_places,
    make_loader,
)
from zoo.data.transforms import Preprocess, eval_transform, train_transform
from zoo.errors import DataError, InputError

SMALL = Preprocess(image_size=8)
STILL, RANDOM = eval_transform(SMALL), train_transform(SMALL)


class Images:
    """Images in memory; some cannot be read."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, /) -> tuple[Image.Image, int]:
        if index == self.bad:
            raise DataError(f"image 'cat/{index}.jpg': cut off. Repair it.")
        return make_image((20, 16), seed=index), index


def targets(loader: Any) -> list[list[int]]:
    return [batch.tolist() for _, batch in loader]


class Files(Images):
    """Images that several threads may read at once."""

    in_threads = True

    def read(self, index: int, /) -> tuple[Image.Image, int]:
        self.readers.add(threading.get_ident())
        return super().read(index)

    def __init__(self, count: int, bad: int | None = None) -> None:
        super().__init__(count, bad)
        self.readers: set[int] = set()


def test_samples_repeat_for_an_epoch_and_differ_between_epochs() -> None:
    samples = Samples(Images(3), RANDOM, seed=1)
    first, target = samples[1, 0]
    assert target == 1
    assert len(samples) == 3
    assert torch.equal(samples[1, 0][0], first)
    assert torch.equal(samples[1][0], first)  # an index alone is epoch 0
    assert not torch.equal(samples[1, 1][0], first)
    assert not torch.equal(Samples(Images(3), RANDOM, seed=2)[1, 0][0], first)


class Drawing(Images):
    """Images whose colours are drawn anew, from all three generators."""

    def read(self, index: int, /) -> tuple[Image.Image, int]:
        colour = random.randrange(256), int(np.random.randint(256)), int(torch.randint(256, ()))
        return Image.new("RGB", (20, 16), colour), index


def colours(loader: Any) -> list[Any]:
    return [images[:, :, 0, 0].tolist() for images, _ in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_data_sets_of_others_draw_the_same_again_wherever_they_draw_from(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 2, "shuffle": True, "seed": 1}
    loader = make_loader(Drawing(5), STILL, **options)
    epochs = []
    for epoch in (0, 1):
        loader.epoch_sampler.set_epoch(epoch)
        epochs.append(colours(loader))
    assert epochs[0] != epochs[1]
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    states = random.getstate(), np.random.get_state()[1].tolist()
    again = make_loader(Drawing(5), STILL, num_workers=workers, **options)
    again.epoch_sampler.set_epoch(1, start=2)
    assert colours(again) == epochs[1][1:]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_samples_leave_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU was seeded"))
    before = torch.get_rng_state()
    Samples(Images(3), RANDOM)[2, 5]
    assert torch.equal(torch.get_rng_state(), before)
    before = torch.get_rng_state()
    targets(make_loader(Images(5), RANDOM, batch_size=2, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_has_an_order_and_may_start_in_its_middle() -> None:
    sampler = EpochSampler(50, shuffle=True, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert {number for _, number in order} == {epoch}
        orders.append([index for index, _ in order])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == list(range(50))
    assert list(EpochSampler(3)) == [(0, 0), (1, 0), (2, 0)]
    sampler = EpochSampler(10, shuffle=True, leave_out=1)
    whole = list(sampler)
    assert len(whole) == len(sampler) == 9
    sampler.set_epoch(0, start=4)
    assert list(sampler) == whole[4:]
    assert len(sampler) == 9


def test_batches_are_laid_channels_last_and_features_are_left_alone() -> None:
    images, numbers = next(iter(make_loader(Images(5), STILL, batch_size=4)))
    assert (images.shape, images.dtype) == ((4, 3, 8, 8), torch.float32)
    assert (numbers.tolist(), numbers.dtype) == ([0, 1, 2, 3], torch.int64)
    assert torch.equal(images[2], STILL(make_image((20, 16), seed=2)))
    images, features = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    laid = lay_channels_last(images)
    assert torch.equal(laid, images)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    assert lay_channels_last(features) is features


@pytest.mark.parametrize(
    ("count", "batch_size", "shuffle", "sizes"),
    [(5, 4, False, [4, 1]), (5, 4, True, [4]), (6, 4, True, [4, 2]), (1, 4, True, [1]), (3, 1, True, [1, 1, 1])],
)
def test_in_training_no_last_batch_of_one(count: int, batch_size: int, shuffle: bool, sizes: list[int]) -> None:
    loader = make_loader(Images(count), STILL, batch_size=batch_size, shuffle=shuffle)
    assert [len(batch) for batch in targets(loader)] == sizes
    assert len(loader) == len(sizes)


@pytest.fixture
def prepare() -> Iterator[Callable[[Any], Any]]:
    yield Accelerator(cpu=True).prepare
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("prepared_loader", [False, True], ids=["plain", "accelerate"])
def test_the_number_of_workers_does_not_matter(prepared_loader: bool, prepare: Callable[[Any], Any]) -> None:
    epochs: dict[int, list[Any]] = {}
    for workers in (0, 2):
        loader = make_loader(Images(9), RANDOM, batch_size=4, shuffle=True, seed=1, num_workers=workers)
        sampler, prepared = loader.epoch_sampler, prepare(loader) if prepared_loader else loader
        epochs[workers] = []
        for epoch in (3, 4, 3):  # as after a resume: not from 0
            sampler.set_epoch(epoch)
            epochs[workers].append([(images.clone(), numbers.tolist()) for images, numbers in prepared])
    for one, other in zip(epochs[0], epochs[2], strict=True):
        assert [numbers for _, numbers in one] == [numbers for _, numbers in other]
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))
    numbers = [[batch for _, batch in epoch] for epoch in epochs[0]]
    assert numbers[0] == numbers[2] != numbers[1]


@pytest.mark.usefixtures("prepare")
def test_processes_share_an_epoch() -> None:
    seen = []
    for process in (0, 1):
        loader = make_loader(Images(16), STILL, batch_size=4, shuffle=True)
        sampler = loader.epoch_sampler
        prepared = prepare_data_loader(loader, num_processes=2, process_index=process, put_on_device=False)
        sampler.set_epoch(7)
        seen.append([number for batch in targets(prepared) for number in batch])
    assert len(seen[0]) == len(seen[1]) == 8
    assert sorted(seen[0] + seen[1]) == list(range(16))


PLACES = [[(4, 0), (2, 1)], [(2, 0), (0, 3), (1, 0)], [(3, 0)]]


@pytest.mark.parametrize("transform", [STILL, RANDOM], ids=["still", "random"])
def test_threads_make_the_same_batches(transform: Any) -> None:
    before = torch.get_rng_state()
    images, draws = Files(5), transform is RANDOM
    samples = Samples(images, transform, seed=1, draws=draws)
    batches = list(load_places(samples, PLACES, collate, num_workers=0, pin_memory=False, threads=2))
    assert images.readers
    assert threading.get_ident() not in images.readers
    plain = Samples(Images(5), transform, seed=1)
    expected = list(load_places(plain, PLACES, collate, num_workers=0, pin_memory=False))
    for (pixels, numbers), (others, same), places in zip(batches, expected, PLACES, strict=True):
        assert torch.equal(pixels, others)
        assert numbers.tolist() == same.tolist() == [index for index, _ in places]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("threads", [0, None])
def test_what_threads_must_not_read_is_read_by_the_main_one(threads: int | None) -> None:
    images = Files(3)
    images.in_threads = threads == 0
    samples = Samples(images, STILL)
    assert len(list(load_places(samples, [[(0, 0)]], collate, num_workers=0, pin_memory=False, threads=threads))) == 1
    assert images.readers == {threading.get_ident()}


def test_threads_end_after_a_fault_and_when_no_more_is_wanted() -> None:
    before = threading.active_count()
    samples = Samples(Files(5, bad=2), STILL, draws=False)
    batches = load_places(samples, PLACES, collate, num_workers=0, pin_memory=False)
    with pytest.raises(DataError, match=r"^image 'cat/2\.jpg': cut off\. Repair it\.$"):
        next(batches)
    assert threading.active_count() == before
    batches = load_places(Samples(Files(5), STILL), PLACES, collate, num_workers=0, pin_memory=False)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_lie_channels_last(workers: int) -> None:
    for transform in (STILL, eval_transform(SMALL, normalise=False)):
        images, _ = next(iter(make_loader(Images(3), transform, batch_size=3, num_workers=workers)))
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.dtype == transform(make_image()).dtype
        assert torch.equal(images[2], transform(make_image((20, 16), seed=2)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(workers: int) -> None:
    loader = make_loader(Images(3, bad=1), STILL, batch_size=2, num_workers=workers)
    with pytest.raises(DataError) as caught:
        targets(loader)
    assert str(caught.value) == "image 'cat/1.jpg': cut off. Repair it."
    traceback.clear_frames(caught.value.__traceback__)
    del caught  # a loader that is left to the garbage collector takes 5 s to end


class Interrupting(Images):
    """Its reader is asked to stop, as by Ctrl-C, which reaches all processes."""

    def read(self, index: int, /) -> tuple[Image.Image, int]:
        os.kill(os.getpid(), signal.SIGINT)
        return super().read(index)


def test_workers_leave_interrupts_to_the_main_process() -> None:
    assert targets(make_loader(Interrupting(2), STILL, batch_size=2, num_workers=1)) == [[0, 1]]


PROGRAM = """
import multiprocessing
import sys

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import Dataset, default_collate

from zoo.data.loader import order_batches


class Numbers(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, place):
        return torch.zeros(1)  # `place` is index and epoch


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    options = {"batch_size": 2, "shuffle": False, "seed": 0, "num_workers": 1, "pin_memory": False}
    loader = prepare_data_loader(order_batches(Numbers(), 4, default_collate, **options))
    print(len(list(loader)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_program_ends_whose_processes_still_load(method: str, tmp_path: Path) -> None:
    """They leave SIGTERM to their parent, and multiprocessing waits for them at the end of a program."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), method], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="there are no images to load"):
        make_loader(Images(0), STILL, batch_size=2)
    with pytest.raises(InputError, match="batch_size is 0, num_workers 0; expected 1 or more"):
        make_loader(Images(2), STILL, batch_size=0)
    error = pickle.loads(pickle.dumps(ReadError("image 'a': gone.")))
    assert (type(error), str(error)) == (ReadError, "image 'a': gone.")


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for cores, cpu, gpu in ((1, 0, 1), (2, 0, 2), (8, 2, 8), (64, 8, 8)):
        monkeypatch.setattr(
            "zoo.data.loader.os.sched_getaffinity", lambda process, cores=cores: set(range(cores)), raising=False
        )
        assert default_workers(10_000, accelerator=False) == cpu
        assert default_workers(10_000, accelerator=True) == gpu
        assert default_workers(100, accelerator=True) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert count_cores() == 4
    assert default_workers(10_000, accelerator=True) == 4
    assert default_workers(10_000) in (1, 4)
