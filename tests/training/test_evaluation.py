import shutil

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from coloured_folder import write_coloured
from zoo.data.transforms import Preprocess
from zoo.engine.accelerator import make_accelerator
from zoo.errors import DataError, InputError
from zoo.training.evaluation import score_batches


class Colours(nn.Module):
    """Knows a colour when it sees one: the logits are the means of the channels, in the order of its classes."""

    preprocess = Preprocess(image_size=8, mean=(0.0, 0.0, 0.0), std=(0.1, 0.1, 0.1), crop_pct=1.0)

    def __init__(self, *classes):
        super().__init__()
        self.classes = classes
        self.channels = [("red", "green", "blue").index(name) for name in classes]

    def forward(self, images):
        return images.mean((2, 3))[:, self.channels]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("data"), train=5, val=3, test=2)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    model = zoo.get("timm/test_resnet", num_classes=3)
    out = tmp_path_factory.mktemp("runs") / "run"
    return zoo.finetune(model, data, 0.01, out=out, epochs=1, image_size=32, device="cpu", progress=False)


def evaluate(model, data, **options):
    return zoo.evaluate(model, data, device="cpu", progress=False, **options)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_image_is_scored_once(data, batch_size):
    result = evaluate(Colours("blue", "green", "red"), data, batch_size=batch_size)
    assert (result.top1, result.images) == (1.0, 9)
    assert result.confusion == ((3, 0, 0), (0, 3, 0), (0, 0, 3))


@pytest.mark.parametrize(("split", "images"), [("train", 15), ("val", 9), ("test", 6)])
def test_splits(data, split, images):
    assert evaluate(Colours("blue", "green", "red"), data, split=split).images == images


@pytest.mark.parametrize("order", [("red", "green", "blue"), ("green", "red", "blue")])
def test_classes_are_matched_by_name(data, order):
    result = evaluate(Colours(*order), data)
    assert result.classes == order
    assert result.top1 == 1.0


def test_a_folder_of_some_of_the_classes_is_scored_whole(data, tmp_path):
    for name in ("blue", "red"):
        shutil.copytree(data / "val" / name, tmp_path / name)
    result = evaluate(Colours("red", "green", "blue"), tmp_path)
    assert (result.top1, result.images) == (1.0, 6)
    assert result.confusion == ((3, 0, 0), (0, 0, 0), (0, 0, 3))


def test_a_split_that_is_not_there_is_told(data, tmp_path):
    model, alone = Colours("blue", "green", "red"), write_coloured(tmp_path, val=1)
    with pytest.raises(InputError, match=r"'valid'.* expected train, val or test\."):
        evaluate(model, data, split="valid")
    for source in (alone, zoo.open_data(alone)):
        with pytest.raises(DataError, match=r"the data has no split 'train'; it has val\."):
            evaluate(model, source, split="train")


def test_data_that_was_opened_before_must_have_the_models_classes(data):
    opened = zoo.open_data(data)
    assert evaluate(Colours("blue", "green", "red"), opened).top1 == 1.0
    with pytest.raises(DataError, match=r"\(3, first 'blue'\) differ from the model's \(3, first 'red'\)\."):
        evaluate(Colours("red", "green", "blue"), opened)


def test_a_model_its_run_and_its_folder_have_the_same_scores(data, run):
    for model in (run, run.model, run.folder, str(run.folder), zoo.load(run.folder)):
        assert evaluate(model, data) == run.evaluation
    assert run.evaluate(data, split="test", device="cpu", progress=False).images == 6
    with pytest.raises(InputError, match="a run or a run folder, not list"):
        evaluate([run], data)


NAMES = ["red", "green", "blue"]


def named(loaders):
    """Loaders whose numbers have names."""
    return zoo.open_data(loaders, classes=NAMES, evaluation=True)


def loader_of(*targets):
    """One pixel per image, whose colour is its class; the last batch is smaller."""
    colours = nn.functional.one_hot(torch.tensor(targets), 3).float()[:, :, None, None]
    return DataLoader(TensorDataset(colours, torch.tensor(targets)), batch_size=4)


def test_loaders_are_used_as_they_are():
    model = Colours("red", "green", "blue")
    pair = (loader_of(0, 1, 2), loader_of(0, 1, 1, 2, 2, 2))
    assert evaluate(model, named(pair)).confusion == ((1, 0, 0), (0, 2, 0), (0, 0, 3))
    assert evaluate(model, named(pair), split="train").images == 3
    assert evaluate(model, named({"test": pair[1]}), split="test").images == 6
    for val in (pair[1], (None, pair[1])):
        assert evaluate(model, named(val)).images == 6
    for data, split, has in ((pair, "test", "train, val"), (pair[1], "train", "val")):
        with pytest.raises(DataError, match=rf"the data has no split '{split}'; it has {has}\."):
            evaluate(model, named(data), split=split)


def test_labels_that_do_not_fit_the_model_are_told(data):
    model = Colours("red", "green")
    model.classes = ("red", "green", "blue")
    with pytest.raises(InputError, match=r"outputs of shape \(3, 2\); expected \(B, 3\)"):
        evaluate(model, named(loader_of(0, 1, 1)))
    with pytest.raises(
        DataError, match="numbers without names, but the classes of the model have names: 'red', 'green'"
    ):
        evaluate(Colours("red", "green", "blue"), loader_of(0, 1, 2))
    loader = DataLoader(TensorDataset(torch.zeros(3, 3, 8, 8), torch.tensor([0, 1, 5])), batch_size=1)
    with pytest.raises(DataError, match=r"the loader val has targets from 5 to 5 in batch 3; expected 0 to 2"):
        evaluate(Colours("red", "green", "blue"), named(loader))
    with pytest.raises(DataError, match=r"val has classes that are missing in the model: 'red' \(3 images\)"):
        evaluate(Colours("blue", "green"), data)


def test_a_loader_whose_classes_have_another_order_is_matched_by_name():
    loader = loader_of(0, 1, 1, 2)
    loader.dataset.classes = ["red", "green", "blue"]
    for order in (("red", "green", "blue"), ("green", "blue", "red")):
        assert evaluate(Colours(*order), loader).top1 == 1


class Recorder:
    """An evaluator that keeps what it is handed; its scores are all of it."""

    in_rows, examples = True, ()

    def __init__(self):
        self.seen = []

    def observe(self, outputs, targets):
        assert not outputs.requires_grad
        return outputs, targets

    def update(self, observed):
        assert not torch.is_inference_mode_enabled()
        self.seen.append(observed)

    def compute(self):
        return self.seen


def score(network, batches, accelerator=None):
    return score_batches(Recorder(), network, batches, accelerator or make_accelerator("cpu"))[0]


def test_scoring_is_in_eval_mode_without_gradients_that_stay_on_for_its_caller():
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.9), nn.Linear(8, 3)).train()
    batches = [(torch.randn(count, 6), torch.arange(count)) for count in (4, 4, 2)]
    seen = score(network, batches)
    assert not network.training
    for (outputs, targets), (images, expected) in zip(seen, batches, strict=True):
        assert torch.equal(outputs, network(images))
        assert torch.equal(targets, expected)


def test_scoring_takes_every_image_of_a_loader_with_a_sampler_of_its_own():
    data, accelerator = TensorDataset(torch.randn(9, 6), torch.arange(9)), make_accelerator("cpu")
    loader = accelerator.prepare(DataLoader(data, batch_size=4, sampler=[8, 7, 6, 5, 4, 3, 2]))
    seen = [target for _, targets in score(nn.Linear(6, 3), loader, accelerator) for target in targets.tolist()]
    assert seen == [8, 7, 6, 5, 4, 3, 2]


def test_inputs_of_several_tensors_are_scored():
    class Joined(nn.Module):
        def forward(self, parts):
            return torch.cat(parts, 1)

    images = torch.randn(5, 6, 2, 2)
    ((outputs, _),) = score(Joined(), [((images[:, :4], images[:, 4:]), torch.arange(5))])
    assert torch.equal(outputs, images)
