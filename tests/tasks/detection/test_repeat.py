import math
from collections import Counter

import pytest
import torch
from accelerate.data_loader import prepare_data_loader

import zoo
from boxed_folder import write_boxed
from zoo.data import EPOCHS_APART, EpochSampler, Letterbox, order_batches
from zoo.errors import InputError, PresetError
from zoo.settings import Preset
from zoo.tasks.detection.augment import BoxAugment
from zoo.tasks.detection.batches import BoxSamples
from zoo.tasks.detection.repeat import count_repeats, find_rarity
from zoo.tasks.detection.task import Detection

REPEATS = [1.0] * 90 + [2.5] * 8 + [4.25] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of 17 images with boxes, 16 have blue ones and one has a red one."""
    root = write_boxed(tmp_path_factory.mktemp("unequal"), train=18, val=3)
    for number, path in enumerate(sorted((root / "labels/train").iterdir())[:17]):
        first = path.read_text().splitlines()[0].partition(" ")[2]
        path.write_text(f"{int(number == 4)} {first}\n")
    return root


@pytest.fixture(scope="module")
def data(folder):
    return zoo.open_data(folder, task="detection")


def test_factors_are_those_of_the_paper(data):
    options = Preset(sampler="repeat", repeat_threshold=0.5)
    assert find_rarity(data, options) == {"blue": (16, 1.0), "red": (1, pytest.approx(math.sqrt(0.5 * 18)))}
    repeats = count_repeats(data, options)
    assert repeats == [1.0] * 4 + [pytest.approx(3.0)] + [1.0] * 13
    assert count_repeats(data, Preset()) is None
    assert Detection().describe_balance(data, Preset()) == {}


def test_an_epoch_has_every_image_and_rare_ones_as_often_as_their_factor():
    sampler, drawn = EpochSampler(100, shuffle=True, seed=3, repeats=REPEATS), Counter()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        places = list(sampler)
        assert len(places) == len(set(places)) == len(sampler) == 118  # an image that comes again is changed anew
        counts = Counter(index for index, _ in places)
        wrong = [i for i, often in enumerate(REPEATS) if not math.floor(often) <= counts[i] <= math.ceil(often)]
        assert len(wrong) <= 1  # one place may be cut off, so that all epochs have the same length
        drawn.update(counts)
    means = torch.tensor([drawn[index] / 200 for index in range(100)])
    assert torch.allclose(means, torch.tensor(REPEATS), atol=0.2)
    assert means[:90].mean() > 0.99


def test_the_order_of_a_resumed_epoch_is_that_of_its_rest():
    sampler = EpochSampler(100, shuffle=True, seed=3, repeats=REPEATS)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, start=40)
    assert list(sampler) == whole[40:]


class Places(torch.utils.data.Dataset):
    def __getitem__(self, place):
        return place


@pytest.mark.parametrize("drawing", [{"repeats": REPEATS}, {"draw_weights": [1 / 90] * 90 + [1 / 10] * 10}], ids=list)
def test_two_processes_share_the_order_of_one(drawing):
    def load(process, processes):
        options = {"shuffle": True, "seed": 1, "num_workers": 0, "pin_memory": False, **drawing}
        loader = order_batches(Places(), 100, list, batch_size=5, **options)
        loader.epoch_sampler.set_epoch(3)
        return list(prepare_data_loader(loader, num_processes=processes, process_index=process, put_on_device=False))

    whole, first, second = load(0, 1), load(0, 2), load(1, 2)
    assert len(first) == len(second)
    together = [batch for pair in zip(first, second, strict=True) for batch in pair]
    assert together[: len(whole) - 1] == whole[:-1]  # the last batches are filled up
    shares = [sum(index >= 90 for batch in part for index, _ in batch) / (5 * len(part)) for part in (first, second)]
    expected = sum(REPEATS[90:]) / sum(REPEATS) if "repeats" in drawing else 0.5
    assert shares == pytest.approx([expected, expected], abs=0.2)


def test_repeated_images_are_plain_at_the_end_only(data):
    samples = BoxSamples(data.train, Letterbox().resized(64), BoxAugment(mosaic=1.0), plain_from=2)
    fitted = BoxSamples(data.train, Letterbox().resized(64))[3][0]
    assert not torch.equal(samples[3, 1 + EPOCHS_APART][0], fitted)
    assert torch.equal(samples[3, 2 + EPOCHS_APART][0], fitted)


class Show:
    def __init__(self):
        self.rows, self.titles, self.lines = [], [], []

    def table(self, rows, *, title, **options):
        self.rows.append(rows)
        self.titles.append(title)

    def log(self, line):
        self.lines.append(line)


def test_images_and_factors_are_in_the_plan(data):
    show, options = Show(), Preset(sampler="repeat", repeat_threshold=0.5)
    Detection().report(data, options, show)
    assert show.titles[-1] == "training images per class; 20 per epoch instead of 18"
    assert show.rows[-1][1] == {"class": "red", "images": "1", "repeat factor": "3.00"}
    assert Detection().describe_balance(data, options) == {
        "images_per_class": {"blue": 16, "red": 1},
        "repeat_factors": {"blue": 1.0, "red": pytest.approx(3.0)},
    }


def test_a_threshold_that_repeats_nothing_is_told(data):
    show = Show()
    Detection().report(data, Preset(sampler="repeat", repeat_threshold=0.01), show)
    assert "sampler=repeat repeats nothing: every class is in 1.0% of the training images or more" in show.lines[-1]


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (
            "timm/test_resnet",
            {"sampler": "repeat"},
            r"sampler is 'repeat', which does not apply to a classifier",
        ),
        (
            "yolo_nas_s",
            {"sampler": "balanced"},
            r"sampler is 'balanced', which does not apply to a detector",
        ),
        ("yolo_nas_s", {"repeat_threshold": 0.2}, r"repeat_threshold is 0\.2, but sampler is 'shuffle'"),
        ("timm/test_resnet", {"repeat_threshold": 0.2}, r"repeat_threshold is 0\.2, which does not apply to a classi"),
    ],
)
def test_what_makes_no_sense_is_refused(model, fields, text):
    with pytest.raises((InputError, PresetError), match=text):
        zoo.plan(model, lr=0.1, **fields)
