import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import zoo
from small_run import DATA, EVALUATION, TINY, change_config, write_run
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.exporters._package import Package, pack
from zoo.files.safetensors import save_tensors, sha256_file
from zoo.models import registry
from zoo.models.registry import entries
from zoo.settings.files import load_preset
from zoo.training.run_folder import RunFolder
from zoo.training.run_model import load_model
from zoo.weights.hub import get_endpoint

FILES = {
    "README.md", "config.json", "evaluation.json", "metrics.jsonl", "model.safetensors", "pictures/curves.png",
    "pictures/mistakes.png", "plan.json", "preset.yaml", "proof.json",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run")


def packed(source: Any, tmp_path: Path, **options: Any) -> Package:
    return pack(source, Path(tempfile.mkdtemp(dir=tmp_path)), repo="org/garden", **options)


def read(package: Package, name: str) -> Any:
    return json.loads((package.folder / name).read_text())


def test_what_goes_is_a_folder_of_its_own(run: RunFolder, tmp_path: Path) -> None:
    package = packed(run.path, tmp_path)
    assert {name for name, _ in package.files} == FILES
    assert all((package.folder / name).stat().st_size == size for name, size in package.files)
    assert package.size == sum(size for _, size in package.files)
    assert (package.model, package.licence) == (TINY, None)
    for name in ("evaluation.json", "metrics.jsonl", "plan.json", "proof.json", "model.safetensors"):
        assert (package.folder / name).read_bytes() == run.file(name).read_bytes()
    assert read(package, "config.json") == run.read_json("config.json")
    text = b"".join((package.folder / name).read_bytes() for name, _ in package.files)
    assert b"somebody" not in text
    assert b"garden" in text, "the card names the data, without where it is"
    before = sha256_file(run.file("model.safetensors"))
    package = packed(run.path, tmp_path)
    ours, theirs = load_model(run.path).state_dict(), load_model(package.folder).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for file in package.folder.rglob("*.*"):
        file.unlink()
    assert sha256_file(run.file("model.safetensors")) == before


def test_a_run_object_and_a_model(run: RunFolder, tmp_path: Path) -> None:
    assert packed(SimpleNamespace(folder=run.path), tmp_path).files
    model = zoo.get(TINY, num_classes=2, seed=8)
    package = packed(model, tmp_path)
    assert {name for name, _ in package.files} == {"README.md", "config.json", "model.safetensors"}
    assert package.notes == ()
    assert all(
        torch.equal(value, model.state_dict()[name]) for name, value in load_model(package.folder).state_dict().items()
    )


def test_plots_are_left_out_if_asked(run: RunFolder, tmp_path: Path) -> None:
    package = packed(run.path, tmp_path, pictures=False)
    assert {name for name, _ in package.files} == {name for name in FILES if "/" not in name}
    assert "pictures/" not in (package.folder / "README.md").read_text()
    assert package.notes == ()


def test_weights_from_a_local_file_lose_their_path(run: RunFolder, tmp_path: Path) -> None:
    origin = {"weights": "/home/somebody/runs/first/model.safetensors", "sha256": "0" * 64}
    change_config(run, licence="mit", origin=origin | {"pretrained": "/home/somebody/runs/first", "init_seed": 3})
    places = {"pretrained": "/home/somebody/runs/first", "image_root": "/home/somebody/photos"}
    preset = load_preset(str(run.file("preset.yaml"))).replace(**places)
    run.write_text("preset.yaml", preset.to_yaml(full=True))
    package = packed(run.path, tmp_path)
    assert read(package, "config.json")["origin"] == {
        "weights": "a local file, model.safetensors",
        "sha256": "0" * 64,
        "init_seed": 3,
    }
    sent = load_preset(str(package.folder / "preset.yaml"))
    assert (sent.pretrained, sent.image_root) == (None, None)
    assert load_preset(str(run.file("preset.yaml"))) == preset, "the run itself is not changed"


@pytest.mark.parametrize("pretrained", [True, "timm/parent", f"timm/parent@{'1' * 40}"])
def test_weights_from_a_hub_keep_their_place(run: RunFolder, tmp_path: Path, pretrained: bool | str) -> None:
    origin = {"weights": f"{get_endpoint()}/timm/parent", "revision": "1" * 40, "pretrained": pretrained}
    change_config(run, licence="apache-2.0", origin=origin)
    run.write_text("preset.yaml", run.load_preset().replace(pretrained=pretrained).to_yaml(full=True))
    package = packed(run.path, tmp_path)
    assert read(package, "config.json") == run.read_json("config.json")
    assert load_preset(str(package.folder / "preset.yaml")).pretrained == pretrained
    assert package.licence == "apache-2.0"
    assert "\nbase_model:\n- timm/parent\n" in (package.folder / "README.md").read_text()


def test_a_preset_that_asks_elsewhere_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    change_config(run, origin={"weights": f"{get_endpoint()}/timm/parent"})
    run.write_text("preset.yaml", run.load_preset().replace(pretrained="org/private-thing").to_yaml(full=True))
    assert load_preset(str(packed(run.path, tmp_path).folder / "preset.yaml")).pretrained is None


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("evaluation.json", EVALUATION | {"note": "/home/somebody/x.png"}, 1),
        ("plan.json", {"from": "/Users/somebody/plan"}, 2),
        ("proof.json", {"from": "C:\\Users\\somebody"}, 2),
        ("plan.json", {"from": "file:///x/y"}, 2),
        ("plan.json", {"from": str(Path.cwd() / "plan")}, 2),
    ],
)
def test_paths_of_this_machine_do_not_leave_it(
    run: RunFolder, tmp_path: Path, name: str, value: Any, line: int
) -> None:
    run.write_json(name, value)
    with pytest.raises(InputError, match=rf"^{name}, line \d+, holds '.*', which looks like a local path\."):
        packed(run.path, tmp_path)


def test_nor_in_the_header_of_the_weights(run: RunFolder, tmp_path: Path) -> None:
    tensors = load_model(run.path).state_dict()
    save_tensors(tensors, run.file("model.safetensors"), {"from": "/home/somebody/weights"})
    with pytest.raises(InputError, match=r"^the metadata of model\.safetensors, line \d, holds '/home/somebody"):
        packed(run.path, tmp_path)


@pytest.mark.parametrize("text", ["https://example.org/home/x", "a/home/b", "~/home", "either/or", "/homework"])
def test_what_only_looks_like_one(run: RunFolder, tmp_path: Path, text: str) -> None:
    run.write_json("plan.json", {"note": text})
    assert packed(run.path, tmp_path).files


@pytest.mark.parametrize("how", ["state", "status", "weights"])
def test_a_run_that_is_not_finished(run: RunFolder, tmp_path: Path, how: str) -> None:
    if how == "state":
        run.save_state({"position": {"epoch": 1}})
    elif how == "status":
        run.write_json("run.json", {"status": "interrupted"})
    else:
        run.file("model.safetensors").unlink()
    with pytest.raises(InputError, match=r"run is not finished\. Resume it \(zoo finetune --resume\), then push it\."):
        packed(run.path, tmp_path)


def test_a_model_of_no_known_class(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^this model has a class that is not registered, .*register_model"):
        packed(nn.Linear(2, 2), tmp_path)
    change_config(run, model=None)
    with pytest.raises(InputError, match=r"run has a class that is not registered"):
        packed(run.path, tmp_path)


def test_a_class_of_ones_own_goes_if_it_is_registered(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", entries())

    @zoo.register_model("pond_net")
    def build(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

    package = packed(zoo.get("pond_net", num_classes=2), tmp_path)
    assert package.notes == (
        "pond_net is a custom model class; to load it, others must import the module that registers it",
    )
    assert "import the module that registers it first" in (package.folder / "README.md").read_text()
    monkeypatch.setattr(registry, "_ENTRIES", {})
    zoo.list_models()
    with pytest.raises(InputError, match=r"is a 'pond_net', which is not registered in this process\. Import"):
        packed(package.folder, tmp_path)


@pytest.mark.parametrize("licence", ["licenseref-yolo-nas-non-commercial", "cc-by-nc-nd-4.0", "CC-BY-ND-4.0"])
def test_weights_that_may_not_be_passed_on(run: RunFolder, tmp_path: Path, licence: str) -> None:
    change_config(run, licence=licence)
    with pytest.raises(LicenceError, match=r"It cannot be uploaded, not even to a private repository\."):
        packed(run.path, tmp_path)


@pytest.mark.usefixtures("small_detector")
def test_a_licence_that_was_taken_out_is_found_elsewhere(run: RunFolder, tmp_path: Path) -> None:
    tensors = load_model(run.path).state_dict()
    save_tensors(tensors, run.file("model.safetensors"), {"licence": "cc-by-nd-4.0"})
    with pytest.raises(LicenceError, match=r"fine-tuned from weights under the CC BY-ND 4\.0"):
        packed(run.path, tmp_path)
    model = zoo.get("yolo_nas_s", num_classes=2)
    model.config["origin"]["sha256"] = zoo.describe("yolo_nas_s")["weights"]["sha256"]
    with pytest.raises(LicenceError, match="fine-tuned from weights under the licence of the YOLO-NAS weights"):
        packed(model, tmp_path)


@pytest.mark.parametrize("licence", [None, "unknown"])
def test_weights_of_no_known_licence_are_told(run: RunFolder, tmp_path: Path, licence: str | None) -> None:
    change_config(run, licence=licence, origin={"weights": "somewhere"})
    notes = packed(run.path, tmp_path).notes
    assert notes[0].startswith("the licence of the pretrained weights is unknown; make sure")


@pytest.mark.parametrize("source", [5, None, {"folder": 3}], ids=repr)
def test_things_that_are_no_model(tmp_path: Path, source: Any) -> None:
    with pytest.raises(InputError, match=r"cannot be pushed; expected a run, a run folder, or a model from zoo\.get\."):
        packed(source, tmp_path)


def test_a_folder_that_is_not_whole(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder or file"):
        packed(tmp_path / "gone", tmp_path)
    run.file("model.safetensors").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match=r"model\.safetensors is not a valid safetensors file: "):
        packed(run.path, tmp_path)
    save_tensors({"fc.weight": torch.zeros(2)}, run.file("model.safetensors"), {})
    with pytest.raises(WeightsError, match=r"does not fit Classifier: \d+ missing"):
        packed(run.path, tmp_path)


@pytest.mark.parametrize("name", ["plan.json", "evaluation.json", "data.json"])
def test_records_that_are_none(run: RunFolder, tmp_path: Path, name: str) -> None:
    run.write_text(name, "[1]")
    with pytest.raises(InputError, match=rf"{name}.* expected a JSON object"):
        packed(run.path, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan.json", {"groups": 5}),
        ("plan.json", {"groups": [1]}),
        ("evaluation.json", {"top1": 0.5, "per_class": [1]}),
        ("proof.json", {"tensors": 5, "moments": 3}),
        ("data.json", DATA | {"counts": {"train": [1]}}),
    ],
)
def test_records_of_another_form(run: RunFolder, tmp_path: Path, name: str, value: Any) -> None:
    run.write_json(name, value)
    with pytest.raises(InputError, match=r"^the records of the run are not in the format of zoo\.finetune"):
        packed(run.path, tmp_path)


def test_an_empty_plan_and_scores_that_are_none(run: RunFolder, tmp_path: Path) -> None:
    for name in ("plan.json", "evaluation.json", "proof.json"):
        run.write_json(name, {})
    card = (packed(run.path, tmp_path).folder / "README.md").read_text()
    assert "## Scores" not in card
    assert "## How it was trained" not in card


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "id_rsa"
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "metrics.jsonl", "evaluation.json", "plan.json", "proof.json", "data.json", "run.json", "config.json",
        "preset.yaml", "model.safetensors", "pictures/zz.png",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["link", "sound link", "pipe"])
def test_only_files_of_the_folder_itself_go(run: RunFolder, tmp_path: Path, key: Path, name: str, kind: str) -> None:
    """Not even a link to a file that is what its name says."""
    target = run.file(name)
    if kind == "sound link":
        key = tmp_path / target.name
        key.write_bytes((target if target.exists() else run.pictures / "curves.png").read_bytes())
    target.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(key)
    with pytest.raises(InputError, match=r"it is a symbolic link|is not a regular file|is not finished|is not a run"):
        packed(run.path, tmp_path)


def test_links_to_folders(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(run.path)
    assert packed(tmp_path / "latest", tmp_path).files
    run.pictures.rename(tmp_path / "elsewhere")
    run.file("pictures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        InputError,
        match=r"curves\.png' cannot be uploaded: it is a symbolic link or inside a linked folder; expected a "
        r"regular file\. Expected the file written by the run\. Remove it, or upload the model alone: "
        r"zoo\.push\(zoo\.load\(folder\), \.\.\.\)\.",
    ):
        packed(run.path, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("metrics.jsonl", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "line 1: "),
        ("metrics.jsonl", b'{"epoch": 1}\n[2]\n', "line 2: expected a JSON object"),
        ("metrics.jsonl", b'{"loss": NaN}\n', "line 1: it contains NaN, which is not valid JSON"),
        ("evaluation.json", b'{"top1": 1.0, "top1": 0.0}', "key 'top1'"),
        ("plan.json", b"\xff\xfe", "decode"),
        ("pictures/curves.png", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "cannot identify image file"),
        ("pictures/curves.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be uploaded"),
    ],
)
def test_what_goes_is_what_it_is_called(run: RunFolder, tmp_path: Path, name: str, content: bytes, text: str) -> None:
    run.file(name).write_bytes(content)
    with pytest.raises(InputError, match="cannot be uploaded: ") as refusal:
        packed(run.path, tmp_path)
    assert text in str(refusal.value)


def test_a_lone_surrogate_in_the_scores(run: RunFolder, tmp_path: Path) -> None:
    """JSON can hold half of a character, and UTF-8 cannot."""
    run.file("evaluation.json").write_text(json.dumps(EVALUATION | {"per_class": [{"class": "a\ud800", "images": 1}]}))
    package = packed(run.path, tmp_path)
    assert read(package, "evaluation.json")["per_class"][0]["class"] == "a\ud800"
    assert "| a? | 1 |" in (package.folder / "README.md").read_text("utf8")
