import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coloured_folder import write_coloured
from image_files import write_image
from tools.cli import main
from tools.data_commands import app
from zoo.errors import DataError, InputError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Cats and dogs in the layout of YOLO, with a repeated box in line 2 of a file of train."""
    for seed, name in enumerate(("train/a", "train/b", "val/c")):
        write_image(tmp_path / f"images/{name}.png", (40, 30), seed)
        label = tmp_path / f"labels/{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n1 0.2 0.2 0.2 0.2\n")
    (tmp_path / "labels/train/b.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    return tmp_path


def test_counts_classes_and_findings_are_printed(folder: Path) -> None:
    result = run("check", folder)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert f"YOLO, {folder}" in lines
    assert "class train boxes val boxes train images val images" in lines
    assert "cat 2 1 2 1" in lines
    assert "dog 1 1 1 1" in lines
    assert "all 3 2 2 1" in lines
    assert "0 0 cat" in lines
    where = lines.index("warning: duplicate boxes")
    assert lines[where + 1] == "labels/train/b.txt:2: 'cat' at x 10 to 30, y 7.5 to 22.5, a duplicate; skipped"
    assert lines[-1] == "1 warning"


def test_nothing_odd(folder: Path) -> None:
    assert run("check", folder, "--split", "val").output.endswith("no problems found\n")
    assert isinstance(run("check", folder / "missing").exception, DataError)
    wrong = run("check", folder, "--split", "dev").exception
    assert isinstance(wrong, InputError)
    assert str(wrong) == "unknown split 'dev'; expected train, val or test."


def test_errors_give_exit_code_1(folder: Path) -> None:
    (folder / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.5 x 0.5 0.5\n")
    (folder / "images/val/c.png").write_bytes(b"")
    result = run("check", folder)
    assert result.exit_code == 1
    assert "labels/train/a.txt:2" in result.output
    assert "empty file (0 bytes); the image is skipped" in result.output
    assert result.output.splitlines()[-1].startswith("2 errors, ")


def test_json_holds_everything(folder: Path) -> None:
    (folder / "images/val/c.png").write_bytes(b"")
    result = run("check", folder, "--json")
    assert result.exit_code == 1
    values = json.loads(result.output)
    assert values["classes"] == ["cat", "dog"]
    assert values["class_map"] == [[0, "cat"], [1, "dog"]]
    assert values["splits"]["train"] == {
        "images": 2,
        "boxes": {"cat": 2, "dog": 1},
        "images_with": {"cat": 2, "dog": 1},
    }
    first = values["findings"][0]
    assert (first["level"], first["kind"], first["file"]) == (
        "error",
        "unreadable images",
        "images/val/c.png",
    )


def test_names_that_would_move_the_cursor_are_escaped(folder: Path) -> None:
    (folder / "images/train/\x1b[2J.png").write_bytes(b"")
    (folder / "labels/train/\x1b[2J.txt").write_text("")
    result = run("check", folder)
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert r"\x1b[2J.png" in result.output


def test_folders_of_classes_are_checked_too(tmp_path, capsys) -> None:
    folder = write_coloured(tmp_path / "images", train=3, val=2)
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "folders of classes, without boxes" in out
    assert "every image can be used" in out
    (folder / "train" / "red" / "bad\nerror: fake.png").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert r"cannot be used: train/red/bad\nerror: fake.png: empty file (0 bytes)" in out
    assert "1 images cannot be used" in out
    assert main(["data", "check", str(folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["train"] == {"blue": 3, "green": 3, "red": 3}
    assert main(["data", "check", str(tmp_path)]) == 2
