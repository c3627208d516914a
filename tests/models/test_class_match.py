"""One rule for names: whatever gives the data, and whatever their order is, an output keeps its meaning."""

import warnings
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

import zoo
from zoo._model import ModelInterface
from zoo.data.transforms import Preprocess
from zoo.errors import DataError, InputError
from zoo.models import registry
from zoo.models.class_match import match_classes, names_of
from zoo.models.custom import make_entry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasets = pytest.importorskip("datasets")

COLOURS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "0": (1.0, 1.0, 0.0),
    "1": (0.0, 1.0, 1.0),
    "10": (1.0, 0.0, 1.0),
    "2": (1.0, 1.0, 1.0),
    "grey": (0.5, 0.5, 0.5),
}
OPTIONS: dict[str, Any] = {"device": "cpu", "progress": False}
SMALL: dict[str, Any] = {"epochs": 1, "batch_size": 8, "cache": "off", "num_workers": 0, "warmup_epochs": 0.0}


class Nearest(nn.Module):
    """Knows colours: the logit of a class falls with the distance of the mean colour from the class's own."""

    head_prefixes = ("head.",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 3, 1, groups=3)
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.scale(images).mean((2, 3)))

    def get_finetune_lr_dict(self, lr: float) -> dict[str, float]:
        return {"head": lr, "default": 0.0}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = make_entry(
        Nearest,
        "nearest_colour",
        preprocess={"image_size": 8, "mean": (0, 0, 0), "std": (1, 1, 1)},
        code_licence="unknown",
        summary=None,
    )
    monkeypatch.setitem(registry._ENTRIES, "nearest_colour", entry)


def knowing(*names: str) -> Any:
    """A model of the registry that tells these colours apart without a mistake."""
    model = zoo.get("nearest_colour", classes=names)
    colours = torch.tensor([COLOURS[name] for name in names])
    with torch.no_grad():
        model.scale.weight.fill_(1)
        model.scale.bias.zero_()
        model.head.weight.copy_(40 * colours)
        model.head.bias.copy_(-20 * colours.square().sum(1))
    return model


def image(name: str) -> Image.Image:
    return Image.new("RGB", (8, 8), tuple(round(255 * part) for part in COLOURS[name]))


class Images(Dataset[Any]):
    """Two images of each class, as torchvision's sets give them."""

    def __init__(self, *names: str, known: bool = True, shuffled: bool = False) -> None:
        self.samples = [(image(name), number) for number, name in enumerate(names) for _ in range(2)]
        if known:
            self.classes = list(names)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def numbers_of(*names: str) -> Any:
    """Integers that are the names of classes."""
    data = Images(*names, known=False)
    data.samples = [(image, int(names[number])) for image, number in data.samples]
    return data


def loader_of(*names: str, known: bool = True) -> Any:
    colours = torch.tensor([COLOURS[name] for name in names for _ in range(2)])[:, :, None, None].expand(-1, 3, 8, 8)
    dataset = TensorDataset(colours.clone(), torch.arange(len(names)).repeat_interleave(2))
    if known:
        dataset.classes = list(names)  # type: ignore[attr-defined]
    return DataLoader(dataset, batch_size=3)


def encoded(name: str) -> dict[str, Any]:
    stream = BytesIO()
    image(name).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def table_of(*names: str, texts: bool = False) -> Any:
    labels: list[Any] = [name if texts else number for number, name in enumerate(names) for _ in range(2)]
    kind = datasets.Value("string") if texts else datasets.ClassLabel(names=list(names))
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    images = [encoded(name) for name in names for _ in range(2)]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def folder_of(root: Any, *names: str) -> Any:
    for split in ("train", "val"):
        for name in names:
            for number in range(2):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image(name).save(path)
    return root


KINDS: dict[str, Any] = {
    "data set": lambda root, names: (Images(*names), Images(*names)),
    "subset": lambda root, names: (Subset(Images(*names), range(2 * len(names))), Images(*names)),
    "concat": lambda root, names: (ConcatDataset([Images(*names)] * 2), Images(*names)),
    "loader": lambda root, names: (loader_of(*names), loader_of(*reversed(names))),
    "loaders by name": lambda root, names: {"train": loader_of(*names), "val": loader_of(*names)},
    "class labels": lambda root, names: (table_of(*names), table_of(*reversed(names))),
    "texts": lambda root, names: (table_of(*names, texts=True), table_of(*names, texts=True)),
    "folder": lambda root, names: folder_of(root / "data", *names),
}
ORDERS = {
    "same": ("red", "green", "blue"),
    "another order": ("blue", "red", "green"),
    "fewer": ("blue", "red"),
    "more": ("grey", "blue", "red", "green"),
    "some": ("blue", "grey", "red"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_model_keeps_what_it_knows(kind: str, order: str, tmp_path: Any) -> None:
    names, model = ORDERS[order], knowing("red", "green", "blue")
    data = KINDS[kind](tmp_path, names)
    if "grey" in names:
        with pytest.raises(DataError, match="grey"):
            zoo.evaluate(model, data, **OPTIONS)
    else:
        assert zoo.evaluate(model, data, **OPTIONS).top1 == 1
    told: list[str] = []
    opened = zoo.open_data(data, like=model.classes)
    match_classes(model, opened, told.append)
    assert set(model.classes) == set(names)
    assert model.classes[:1] == ("red",)  # in the model's own order
    scored = zoo.evaluate(model, opened, **OPTIONS)
    known = [row["recall"] for row in scored.per_class() if row["class"] != "grey"]
    assert known == [1.0] * len(known)
    assert bool(told) == (set(names) != {"red", "green", "blue"})


@pytest.mark.parametrize("kind", ["data set", "loader", "folder"])
def test_data_that_was_opened_before_moves_the_outputs(kind: str, tmp_path: Any) -> None:
    model, names = knowing("red", "green", "blue"), ("blue", "green", "red")
    opened = zoo.open_data(KINDS[kind](tmp_path, names), classes=names)
    told: list[str] = []
    parameter = model.head.weight
    match_classes(model, opened, told.append)
    assert model.head.weight is parameter
    assert model.classes == names
    assert told == ["outputs by name: 'blue', 'green', 'red' keep their weights"]
    assert zoo.evaluate(model, opened, **OPTIONS).top1 == 1


@pytest.mark.parametrize("order", ["another order", "some"])
def test_a_run_begins_where_the_model_was_and_goes_on_there(order: str, tmp_path: Any) -> None:
    names, model = ORDERS[order], knowing("red", "green", "blue")
    data = folder_of(tmp_path / "data", *names)
    run = zoo.finetune(model, data, 1e-9, out=tmp_path / "run", optimizer="SGD", **SMALL, **OPTIONS)
    known = [row["recall"] for row in run.evaluation.per_class() if row["class"] != "grey"]
    assert known == [1.0] * len(known)
    assert (
        zoo.load(tmp_path / "run").classes
        == run.model.classes
        == tuple(sorted(names, key=("red", "green", "blue", "grey").index))
    )
    assert run.preset.match_outputs
    assert zoo.evaluate(tmp_path / "run", data, **OPTIONS).top1 == run.evaluation.top1


def test_numbers_without_names_mean_the_classes_of_their_digits() -> None:
    model = knowing("0", "1", "10", "2")
    assert zoo.evaluate(model, numbers_of("0", "1", "2", "10"), **OPTIONS).top1 == 1
    assert zoo.evaluate(model, loader_of("0", "1", "2", known=False), **OPTIONS).top1 == 1
    opened = zoo.open_data((numbers_of("0", "1", "2", "10"),) * 2, like=names_of(model))
    match_classes(model, opened, print)
    assert model.classes[:4] == ("0", "1", "10", "2")


@pytest.mark.parametrize("data", [Images("red", "green", "blue", known=False), loader_of("red", "green", known=False)])
def test_numbers_without_names_are_refused_by_names(data: Any) -> None:
    model = knowing("red", "green", "blue")
    text = (
        r"are numbers without names, but the classes of the model have names: 'red', 'green', 'blue', so the "
        r"numbers cannot be matched\. Set the names on the data set, dataset\.classes = \[\.\.\.\], or open "
        r"it with zoo\.open_data\("
    )
    with pytest.raises(DataError, match=text):
        zoo.evaluate(model, data, **OPTIONS)
    with pytest.raises(InputError, match=text):
        match_classes(model, zoo.open_data((data, data), like=names_of(model)), print)
    named = zoo.open_data((data, data), classes=["red", "green", "blue"])
    match_classes(model, named, print)
    assert zoo.evaluate(model, named, **OPTIONS).top1 == 1


def test_a_new_model_takes_the_names_of_the_data_in_its_own_order() -> None:
    model = zoo.get("nearest_colour", num_classes=3)
    before = model.head.weight.detach().clone()
    told: list[str] = []
    match_classes(model, zoo.open_data((Images("red", "green", "blue"),) * 2), told.append)
    assert (model.classes, told) == (("red", "green", "blue"), [])
    assert torch.equal(model.head.weight, before)
    model = zoo.get("nearest_colour", classes=["green", "red", "blue"])
    opened = zoo.open_data((Images("red", "green", "blue"),) * 2, like=names_of(model))
    match_classes(model, opened, print)
    assert model.classes == opened.classes == ("green", "red", "blue")


def test_outputs_of_no_common_class_are_made_anew() -> None:
    model, told = knowing("red", "green", "blue"), []  # type: ignore[var-annotated]
    match_classes(model, zoo.open_data((Images("grey", "0", "1"),) * 2), told.append)
    assert told == ["outputs by name: 'grey', '0', '1' are new; 'red', 'green', 'blue' are dropped"]
    assert torch.equal(model.head.weight, zoo.get("nearest_colour", num_classes=3).head.weight)
    with pytest.raises(
        InputError, match=r"the data has 2 classes, but the model has 3 outputs\. Create the model with"
    ):
        match_classes(
            zoo.get("timm/test_resnet", classes=["a", "b", "c"]), SimpleNamespace(classes=("x", "y"), named=True), print
        )


def test_layers_that_an_optimizer_holds_are_not_replaced() -> None:
    data = SimpleNamespace(classes=("red", "green", "blue", "grey"), named=True)
    with pytest.raises(
        InputError, match=r"the optimizer already holds its parameters\. Create the model with the classes of the data"
    ):
        match_classes(knowing("red", "green", "blue"), data, print, may_replace=False)


def test_a_module_of_somebody_elses_is_not_changed() -> None:
    class Own(ModelInterface, nn.Module):
        preprocess = Preprocess(image_size=8)

        def __init__(self) -> None:
            super().__init__()
            self.head, self.classes = nn.Linear(3, 3), ("red", "green", "blue")

    data = SimpleNamespace(classes=("blue", "red", "green"), named=True)
    with pytest.raises(
        InputError, match=r"the outputs of a Own cannot be rearranged\. Create it with the classes of the data, or"
    ):
        match_classes(Own(), data, print)
    free = Own()
    free.classes = ()
    match_classes(free, data, print)
    assert free.classes == ("blue", "red", "green")


@pytest.mark.usefixtures("small_detector")
@pytest.mark.parametrize("order", [("red", "blue"), ("red", "grey"), ("blue", "red", "grey")])
def test_a_detector_keeps_what_it_knows(order: tuple[str, ...]) -> None:
    model = zoo.get("yolo_nas_s", classes=["blue", "red"])
    with torch.no_grad():
        for number, head in enumerate((model.heads.head1, model.heads.head2, model.heads.head3)):
            head.cls_pred.weight.normal_(generator=torch.Generator().manual_seed(number))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = dict(zip(model.classes, model.decode(model.eval()(images)).scores.unbind(-1), strict=True))
        match_classes(model, SimpleNamespace(classes=order, named=True), print)
        after = dict(zip(model.classes, model.decode(model.eval()(images)).scores.unbind(-1), strict=True))
    assert model.classes == order
    assert model.num_classes == len(order)
    for name in set(order) & {"red", "blue"}:
        assert torch.allclose(after[name], before[name], atol=1e-5)
