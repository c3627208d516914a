import json
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save

import zoo
from hub_server import HubServer
from small_run import TINY, write_run
from zoo.errors import InputError, LicenceError, WeightsError, ZooError
from zoo.models.saved import names_repository, open_saved
from zoo.training.run_model import load_model

REPO = "org/garden"
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = write_run(tmp_path_factory.mktemp("repository") / "run")
    return {name: run.file(name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture
def commit(hub: HubServer, files: dict[str, bytes]) -> str:
    return hub.add(REPO, files)


def changed(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return files | {"config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}


@pytest.mark.parametrize("text", [REPO, f"{REPO}@main", f"{REPO}@{'0' * 40}", "a/b.c-d_e", "runs/flowers"])
def test_names_of_repositories(text: str) -> None:
    assert names_repository(text)


@pytest.mark.parametrize("text", ["garden", "/abs/path", "../up", "a/b/c", "a/b@", "a/b@x y", "", 5, None, Path("a/b")])
def test_other_names(text: object) -> None:
    assert not names_repository(text)


def test_the_repository_says_which_model_it_holds(hub: HubServer, commit: str) -> None:
    model = zoo.get(REPO)
    assert (model.classes, model.num_classes, model.config["model"]) == (("ant", "bee"), 2, TINY)
    assert model.config["origin"]["revision"] == commit
    named = zoo.get(TINY, pretrained=REPO)
    with torch.no_grad():
        assert torch.equal(model(IMAGES), named(IMAGES))
    assert hub.count("HEAD .*/resolve/main/config.json") == 1
    assert hub.count(f"HEAD .*/resolve/{commit}/model.safetensors") == 1, "weights of the same commit"


def test_a_pinned_repository_is_asked_once(hub: HubServer, commit: str) -> None:
    place = f"{REPO}@{commit}"
    zoo.get(place)
    hub.requests.clear()
    hub.fail(".*", reset=True, times=None)
    assert zoo.get(place).classes == load_model(place).classes == ("ant", "bee")
    assert not hub.requests


def test_other_classes_make_a_new_head(hub: HubServer, commit: str) -> None:
    model = zoo.get(REPO, classes=["x", "y", "z"], seed=2)
    assert model.num_classes == 3
    assert set(model.load_report.reinitialised) == {"fc.weight", "fc.bias"}


def test_weights_and_configuration_are_of_one_commit(hub: HubServer, commit: str, files: dict[str, bytes]) -> None:
    saved = open_saved(REPO)
    hub.add(REPO, changed(files, classes=["cat", "dog"]))
    assert saved.source == f"{REPO}@{commit}"
    assert zoo.get(REPO).classes == ("cat", "dog")
    assert saved.config.classes == ["ant", "bee"]


def test_a_folder_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> None:
    run = write_run(tmp_path / "org" / "garden")
    assert zoo.get(str(run.path)).classes == ("ant", "bee")
    monkeypatch.chdir(tmp_path)
    assert zoo.get(REPO).classes == load_model(REPO).classes == ("ant", "bee"), "a folder comes before a repository"
    assert not hub.requests


def test_a_repository_in_timms_form(hub: HubServer) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = timm.create_model("test_resnet", num_classes=2).eval()
    config = {"architecture": "test_resnet", "num_classes": 2, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    hub.add(REPO, {"config.json": json.dumps(config).encode(), "model.safetensors": save(network.state_dict())})
    for model in (zoo.get(REPO), load_model(REPO)):
        assert (model.config["model"], model.preprocess.image_size) == (TINY, 64)
        with torch.no_grad():
            assert torch.equal(model(IMAGES), network(IMAGES))


def test_names_of_models_and_two_sources_are_no_repositories(hub: HubServer) -> None:
    assert zoo.get(TINY).config["model"] == TINY
    with pytest.raises(InputError, match=r"unknown model 'resnet/resnet50'"):
        zoo.get("resnet/resnet50")
    with pytest.raises(InputError, match=r"timm has no model 'garden'"):
        zoo.get("timm/garden")
    assert not hub.requests
    with pytest.raises(InputError, match=r"^'org/garden' already includes weights, but pretrained='org/x' was passed"):
        zoo.get(REPO, pretrained="org/x")
    assert not hub.requests
    for open_ in (zoo.get, load_model):
        with pytest.raises(
            WeightsError,
            match=r"has no repository org/garden, or you have no access to it\. Check the name; if it is private, "
            r"log in \(hf auth login\) or pass token=\. There is also no folder and no model 'org/garden'",
        ):
            open_(REPO)


def test_what_a_repository_lacks_is_told(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(REPO, {"model.safetensors": files["model.safetensors"]})
    with pytest.raises(WeightsError, match=r"has no config\.json in revision 'main', .*pretrained='org/garden'\)\.$"):
        zoo.get(REPO)
    hub.add(REPO, {"config.json": files["config.json"], "pytorch_model.bin": b"\x80pickle"})
    with pytest.raises(WeightsError, match=r"has no file 'model\.safetensors' .*never \.bin or \.pth files"):
        zoo.get(REPO)
    assert hub.count("pytorch_model") == 0


def test_the_licence_is_asked_before_the_weights_are_fetched(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(REPO, changed(files, licence="cc-by-nc-4.0"))
    with pytest.raises(LicenceError, match=r"cc-by-nc-4\.0, which is not known to allow commercial use"):
        zoo.get(REPO, commercial=True)
    assert hub.count("model.safetensors") == 0


def test_a_class_that_is_not_registered_here(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(REPO, changed(files, model="pond_net", origin={"registered": True}))
    for open_ in (zoo.get, load_model):
        with pytest.raises(
            InputError, match="a checkpoint of 'pond_net', a custom model that is not registered in this"
        ):
            open_(REPO)
    hub.add(REPO, changed(files, model=None))
    with pytest.raises(WeightsError, match=r"class is not registered\. Build the network and pass it as model=, for"):
        zoo.get(REPO)


def test_no_folder_and_no_repository(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no folder or file"):
        open_saved(tmp_path / "gone" / "x" / "y")
    with pytest.raises(WeightsError, match=r"has no config\.json\. Expected a run folder\."):
        open_saved(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": "os.system"}, r"unknown model 'os\.system'"),
        ({"model": "evil/weights"}, r"unknown model 'evil/weights'"),
        ({"model": "timm/hf-hub:evil/weights"}, r"timm has no model 'hf-hub:evil/weights'"),
        ({"model": "timm/local-dir:/etc"}, r"timm has no model 'local-dir:/etc'"),
        ({"model": "../../etc/passwd"}, r"unknown model"),
        ({"auto_map": {"AutoModel": "evil--code.Model"}}, r"unknown key 'auto_map'"),
        ({"backbone": "evil/weights", "use_pretrained_backbone": True}, r"unknown key 'backbone'"),
        ({"_attn_implementation": "evil/kernel"}, r"unknown key '_attn_implementation'"),
        ({"options": {"width": 1_000_000_000}}, r"sets the option width=1000000000"),
        ({"options": {"pretrained_cfg": "evil"}}, r"sets the option pretrained_cfg='evil'"),
    ],
)
def test_hostile_configurations(hub: HubServer, files: dict[str, bytes], changes: dict[str, Any], text: str) -> None:
    hub.add(REPO, changed(files, **changes))
    for open_ in (zoo.get, load_model):
        with pytest.raises(ZooError, match=text):
            open_(REPO)
    assert not hub.count("evil")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", r"Expecting property name"),
        (b"[" * 100_000, r"nested too deeply|Expecting value"),
        (b" " * 1_000_001, r"longer than 1,000,000 bytes"),
    ],
)
def test_files_that_are_no_configuration(hub: HubServer, files: dict[str, bytes], content: bytes, text: str) -> None:
    hub.add(REPO, files | {"config.json": content})
    for open_ in (zoo.get, load_model):
        with pytest.raises(WeightsError, match=rf"config\.json of org/garden at \w{{12}} cannot be used: .*{text}"):
            open_(REPO)
    assert hub.count("model.safetensors") == 0


def test_what_the_file_says_of_its_origin_is_not_followed(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.add(REPO, changed(files, origin={"weights": "https://evil.example/x", "pretrained": "evil/weights"}))
    for model in (zoo.get(REPO), load_model(REPO)):
        origin = model.config["origin"]
        assert origin["weights"] == f"{hub.endpoint}/{REPO}"
        assert origin["pretrained"].startswith(f"{REPO}@") or origin["pretrained"] == REPO
    assert not hub.count("evil")
