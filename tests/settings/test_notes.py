import pytest
import torch
from torch import nn

from zoo.settings.notes import cut_names, notes_on, notes_on_copies
from zoo.settings.preset import Preset

NAMES = [f"blocks.{number}.weight" for number in range(12)] + ["head.weight"]


def test_usual_settings_need_no_word_and_too_long_an_average_one() -> None:
    assert list(notes_on(Preset(), 10, NAMES, None)) == []
    assert list(notes_on(Preset(ema_decay=0.999, ema_warmup=True), 36, NAMES, None)) == []
    assert list(notes_on(Preset(ema_decay=0.9), 36, NAMES, None)) == []
    (told,) = notes_on(Preset(ema_decay=0.999), 36, NAMES, None)
    assert told.startswith("ema_decay is 0.999 and the run has 36 steps: the EMA weights still contain 96% of")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (
            "blocks.1",
            ["the key 'blocks.1' also matches blocks.10, blocks.11. To match only blocks.1, end"],
        ),
        ("blocks.1.", []),
        ("blocks", []),
        ("blocks.11", []),
        ("head", []),
        ("block", []),  # no part is called so
        ("@norm", []),
        ("blocks.1@norm", ["the key 'blocks.1@norm' also matches blocks.10, blocks.11."]),
    ],
)
def test_a_key_that_ends_in_the_middle_of_names(key: str, told: list[str]) -> None:
    found = list(cut_names({key: 0.1, "default": 0}, NAMES))
    assert len(found) == len(told)
    assert all(line.startswith(beginning) for line, beginning in zip(found, told, strict=True))


def test_an_optimizer_that_was_used_before_is_told() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.01)
    assert list(notes_on(Preset(), 5, NAMES, optimizer)) == []
    optimizer.param_groups[0] |= {"lr": 0.0001, "initial_lr": 0.01}
    (told,) = notes_on(Preset(), 5, NAMES, optimizer)
    assert told.startswith(
        "the optimizer was used before: its learning rate was 0.01 initially and is now 0.0001, which the run starts"
    )


def test_copies_of_images_that_are_read_are_told() -> None:
    files = {
        "train": {"a/1": "x", "a/2": "y", "b/3": "z", "b/4": "w", "b/5": "w"},
        "val": {"a/6": "x", "b/7": "y", "b/8": "z", "b/9": "v"},
    }
    labels = {split: {name: name[0] for name in names} for split, names in files.items()}
    told = list(notes_on_copies(files, labels))
    assert told == [
        "val contains copies of training images: 3 of 4 ('a/1' and 'a/6'; 'a/2' and 'b/7'; ...). They "
        "inflate the score; remove one image of each pair.",
        "images in more than one class: 1 ('a/2' and 'b/7'). Remove the wrong copies.",
    ]
    assert len(list(notes_on_copies(files, {}))) == 1
    assert list(notes_on_copies({"train": {"1": "", "2": ""}, "val": {"3": ""}}, {})) == []
    assert list(notes_on_copies({"train": {"1": "x", "2": "x"}}, {"train": {"1": 0, "2": 0}})) == []
    assert list(notes_on_copies({}, {})) == []
