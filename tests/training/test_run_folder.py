import os

import pytest
import torch
from safetensors import safe_open
from torch import nn

import zoo
from zoo.data.transforms import Preprocess
from zoo.errors import InputError, WeightsError
from zoo.files.safetensors import sha256_file
from zoo.models.config import describe_model
from zoo.training.run_claim import create_folder
from zoo.training.run_model import build_network, load_model

TINY = "timm/test_efficientnet"
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return zoo.get(TINY, classes=["ant", "bee", "cat"], drop_rate=0.25, seed=4)


@pytest.fixture
def run(tmp_path):
    return create_folder(tmp_path / "run", "unused")


def test_a_saved_model_comes_back_bit_by_bit(run, model):
    digest = run.save_model(model, model.state_dict())
    assert digest == sha256_file(run.file("model.safetensors"))
    loaded = load_model(run.path)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert (loaded.classes, loaded.drop_rate) == (("ant", "bee", "cat"), 0.25)
    place = {"weights": str(run.path), "revision": None, "sha256": digest, "pretrained": str(run.path)}
    origin = model.config["origin"] | place
    assert loaded.config == model.config | {"origin": origin}
    assert (loaded.preprocess, loaded.training) == (model.preprocess, False)
    assert describe_model(loaded) == describe_model(model).model_copy(update={"origin": origin})
    with safe_open(run.file("model.safetensors"), "pt") as file:
        assert file.metadata() == {"format": "pt", "library": "zoo", "licence": "", "model": TINY}


@pytest.mark.parametrize("change", [{}, {"pad_type": "same"}])
def test_options_and_preprocessing_come_back(run, model, change):
    run.save_model(model, model.state_dict())
    config = run.read_json("config.json")
    config["options"] |= change
    config["preprocess"]["image_size"] = 32
    config["licence"] = "cc-by-nc-4.0"
    run.write_json("config.json", config)
    first = load_model(run.path)
    assert first.preprocess == model.preprocess.replace(image_size=32)
    assert first.licence.commercial is False
    with torch.no_grad():
        assert torch.equal(first(IMAGES), model(IMAGES)) is not bool(change)
        other = create_folder(run.path.parent / "other", "unused")
        other.save_model(first, first.state_dict())
        assert torch.equal(load_model(other.path)(IMAGES), first(IMAGES))


def test_weights_that_are_missing_or_of_another_shape(run, model):
    run.write_json("config.json", describe_model(model).model_dump())
    with pytest.raises(WeightsError, match=r"has no model\.safetensors: the folder is incomplete"):
        load_model(run.path)
    run.save_state({})
    with pytest.raises(WeightsError, match=r"has no model\.safetensors: the run was interrupted; resume it"):
        load_model(run.path)
    run.save_model(model, zoo.get(TINY, num_classes=4).state_dict())
    with pytest.raises(WeightsError, match=r"classifier\.weight \(file \[4, 256\], model \[3, 256\]\)"):
        load_model(run.path)


def test_a_class_of_ones_own_has_to_be_brought(run):
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    own.classes, own.preprocess = ("ant", "bee"), Preprocess(image_size=16)
    run.save_model(own, own.state_dict())
    with pytest.raises(WeightsError, match=r"not registered\. Build the model and pass it as model="):
        load_model(run.path)
    other = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    assert load_model(run.path, model=other) is other
    assert not other.training
    assert torch.equal(other(IMAGES), own(IMAGES))
    config = build_network(run, other)[1]
    assert (config.names, config.preprocess_value, config.model) == (own.classes, own.preprocess, None)
    assert describe_model(nn.Linear(2, 2)).classes is None


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_the_files_of_a_run_have_the_mode_of_any_file(run, model, umask):
    before = os.umask(umask)
    try:
        run.save_model(model, model.state_dict())
        run.save_state({})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in run.path.iterdir()}
    assert modes == dict.fromkeys(("config.json", "model.safetensors", "state.pt"), 0o666 & ~umask)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)


@pytest.mark.parametrize(
    "read", [load_model, lambda path: zoo.get(str(path)), lambda path: zoo.get(TINY, pretrained=path)]
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_sealed_folder_gives_back_what_was_saved_or_nothing(run, model, name, read):
    run.save_model(model, model.state_dict())
    run.seal()
    read(run.path)
    if name == "config.json":  # what swaps two classes, and nothing else
        run.write_text(name, run.file(name).read_text().replace('"ant"', '"bee"', 1).replace('"bee"', '"ant"', 2))
    else:
        damage(run.file(name))
    with pytest.raises(WeightsError, match=rf"{name} does not match its checksum.*delete the line of {name}"):
        read(run.path)


def test_what_is_saved_anew_is_not_held_against_the_digests_of_before(run, model):
    run.save_model(model, model.state_dict())
    run.seal()
    other = zoo.get(TINY, classes=["x", "y"], seed=5)
    run.save_model(other, other.state_dict())
    assert load_model(run.path).classes == ("x", "y")


@pytest.mark.parametrize("text", ["[", "[1]", '{"epoch": 0}', '{"epoch": "1"}', "[" * 100_000])
def test_records_that_are_damaged_are_one_sentence(run, text):
    run.file("metrics.jsonl").write_text(f'{{"epoch": 1}}\n{text}\n')
    with pytest.raises(
        InputError,
        match=r"metrics\.jsonl cannot be read: .* use a complete run folder",
    ):
        run.read_metrics()


@pytest.mark.parametrize("text", ["", "step,fc\n0\n", "step,fc\n0,x\n", 'step,"fc'])
def test_rates_that_are_damaged_are_one_sentence(run, text):
    run.file("rates.csv").write_text(text)
    if text.endswith('"fc'):
        assert run.read_rates() == {"fc": []}
        return
    with pytest.raises(
        InputError,
        match=r"rates\.csv cannot be read: .* use a complete run folder",
    ):
        run.read_rates()


@pytest.mark.parametrize("name", ["metrics.jsonl", "rates.csv", "data.json"])
def test_records_that_are_pipes_are_not_waited_for(run, name):
    os.mkfifo(run.file(name))
    read = {"metrics.jsonl": run.read_metrics, "rates.csv": run.read_rates}.get(name, lambda: run.read_json(name))
    with pytest.raises(InputError, match="it is not a regular file"):
        read()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module."])
def test_a_run_that_was_saved_with_the_names_of_a_wrapper_is_loaded(run, model, prefix):
    run.save_model(model, {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()})
    loaded = load_model(run.path)
    assert torch.equal(loaded(IMAGES), model.eval()(IMAGES))


def test_names_of_wrappers_are_taken_off_if_all_have_them(run, model):
    network = nn.Module()
    network.module, network.forward = nn.Linear(2, 2), lambda images: images
    run.save_model(network, network.state_dict())
    other = nn.Module()
    other.module, other.forward = nn.Linear(2, 2), lambda images: images
    assert torch.equal(load_model(run.path, other).module.weight, network.module.weight)
    run.save_model(model, {f"module.x{name}": tensor for name, tensor in model.state_dict().items()})
    with pytest.raises(WeightsError, match="missing"):
        load_model(run.path)
