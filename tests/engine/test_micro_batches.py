import pytest
import torch

from zoo.engine.micro_batches import MicroBatchSize, count_images, split_batch
from zoo.errors import InputError, TrainingError
from zoo.tasks.detection.batches import BoxTargets


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(8, 2, [2, 2, 2, 2]), (9, 8, [5, 4]), (10, 4, [4, 3, 3]), (3, 1, [1, 1, 1]), (31, 16, [16, 15]), (4, 3, [2, 2])],
)
def test_chunks_are_few_alike_and_share_out_the_batch(count, size, lengths):
    images, targets = torch.randn(count, 2), torch.arange(count)
    chunks = split_batch(images, targets, size)
    assert [len(chunk.inputs) for chunk in chunks] == lengths
    assert torch.equal(torch.cat([chunk.inputs for chunk in chunks]), images)
    assert torch.equal(torch.cat([chunk.targets for chunk in chunks]), targets)
    assert [chunk.share for chunk in chunks] == [length / count for length in lengths]
    assert chunks[-1].inputs.untyped_storage().data_ptr() == images.untyped_storage().data_ptr()


@pytest.mark.parametrize("size", [None, 4, 9])
def test_a_batch_that_fits_is_passed_on_as_it_is(size):
    images, targets = torch.zeros(4, 2), {"anything": "at all"}
    (chunk,) = split_batch(images, targets, size)
    assert chunk.inputs is images
    assert chunk.targets is targets
    assert chunk.share == 1.0


def test_batches_of_every_form_are_cut_together():
    maps = (torch.arange(4.0).reshape(4, 1, 1, 1), torch.arange(4.0).reshape(4, 1))
    rows = torch.tensor([[0, 7, 1, 2, 3, 4], [2, 8, 1, 2, 3, 4], [3, 9, 1, 2, 3, 4], [2, 6, 1, 2, 3, 4.0]])
    first, second = split_batch(maps, BoxTargets(rows, torch.tensor([40, 41, 42, 43])), 2)
    assert [part.flatten().tolist() for part in second.inputs] == [[2, 3], [2, 3]]
    assert first.targets.rows[:, :2].tolist() == [[0, 7]]
    assert second.targets.rows[:, :2].tolist() == [[0, 8], [1, 9], [0, 6]]
    assert second.targets.indices.tolist() == [42, 43]
    first, second = split_batch(torch.zeros(3, 1), ["a", "b", "c"], 2)
    assert (first.targets, second.targets) == (["a", "b"], ["c"])
    assert count_images(torch.zeros(5, 2)) == 5
    assert count_images((torch.zeros(7, 2), torch.zeros(7, 3), torch.zeros(7, 4))) == 7
    assert count_images([1, 2]) == 2


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (torch.zeros(3), r"a tensor \(3,\)"),
        (torch.tensor(1.0), r"a tensor \(\)"),
        ({"labels": torch.zeros(4)}, r"a dict"),
        ("abcd", r"a str"),
        ([1, 2, 3], r"a list"),
    ],
)
def test_targets_that_cannot_be_told_apart_are_told(targets, found):
    with pytest.raises(TrainingError, match=rf"a batch of 4 images cannot be split .* it contains {found}\. Expected"):
        split_batch(torch.zeros(4, 2), targets, 2)


def test_halving_tells_the_new_size_and_ends_at_one_image():
    told = []
    chunks = MicroBatchSize(on_halved=told.append)
    for used in (32, 9, 5, 3, 2):
        chunks.halve(used)
    assert told == [16, 5, 3, 2, 1]
    assert chunks.size == 1
    with pytest.raises(TrainingError, match=r"single image \(CUDA out of memory\)\. Use a smaller"):
        chunks.halve(1, "CUDA out of memory.\nTried to allocate 2 GiB")
    MicroBatchSize().halve(4)  # nobody has to be told


@pytest.mark.parametrize("size", [0, -1, 2.0, "auto", True])
def test_a_size_is_a_number_of_images(size):
    with pytest.raises(InputError, match=r"micro_batch_size is .*; expected an integer, 1 or more, or None"):
        MicroBatchSize(size)
