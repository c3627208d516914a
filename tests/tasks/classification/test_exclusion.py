import json
from pathlib import Path
from typing import Any

import pytest

import zoo
from coloured_folder import write_coloured
from tools.cli import main
from zoo.errors import DataError

NAME = "timm/test_resnet"
OPTIONS: dict[str, Any] = {
    "lr": 0.05,
    "epochs": 1,
    "batch_size": 8,
    "image_size": 32,
    "num_workers": 0,
    "device": "cpu",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coloured(tmp_path / "data", train=4, val=2)


def write_list(path: Path, *names: str) -> Path:
    path.write_text("\n".join(["path,reason", *(f"{name},label" for name in names)]) + "\n")
    return path


def test_what_a_table_names_stays_out(folder: Path, tmp_path: Path) -> None:
    listed = write_list(
        tmp_path / "list.csv", "train/red/00.png", "./val/blue/01.png", str(folder / "train/green/03.png"), "gone.png"
    )
    whole, data = zoo.open_data(folder), zoo.open_data(folder, exclude=listed)
    assert set(data.excluded) == {"train/red/00.png", "val/blue/01.png", "train/green/03.png"}
    assert (len(data.train), len(data.val)) == (10, 5)
    assert data.notes == (
        f"excluded by {listed}: 2 of 12 in train, 1 of 6 in val",
        f"note: 1 images that {listed} names are not in the data ('gone.png')",
    )
    assert data.describe()["digest"] != whole.describe()["digest"]
    assert zoo.open_data(folder, exclude=data.excluded).describe()["digest"] == data.describe()["digest"]
    assert (folder / "train/red/00.png").is_file()
    undivided = zoo.open_data(folder / "train", seed=1), zoo.open_data(folder / "train", seed=1, exclude=["red/00.png"])
    assert {*undivided[0].val.names} - {*undivided[1].val.names} <= {"red/00.png"}  # the others stay where they were
    assert zoo.open_data(folder, exclude=write_list(tmp_path / "none.csv")).excluded == ()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("path\nelsewhere.png\n", "none of the 1 images"),
        ("file,x\ntrain/red/00.png\n", "line 2"),
        ("score\n1\n", "no column of path"),
        ("path\n" + "".join(f"train/red/{n:02}.png\n" for n in range(4)), "no image in train of 'red'"),
    ],
)
def test_tables_that_cannot_be_meant(folder: Path, tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=key):
        zoo.open_data(folder, exclude=tmp_path / "list.csv")


def test_a_run_records_it_and_resumes_without_the_table(folder: Path, tmp_path: Path, capsys: Any) -> None:
    listed = write_list(tmp_path / "list.csv", "train/red/00.png", "val/red/00.png")

    class Stop(zoo.Callback):
        def on_step_end(self, run: Any) -> None:
            raise KeyboardInterrupt

    place = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(NAME, folder, exclude=str(listed), out=place, pretrained=False, callbacks=Stop(), **OPTIONS)
    assert "excluded by" in capsys.readouterr().out
    assert json.loads((place / "data.json").read_text())["excluded"] == ["train/red/00.png", "val/red/00.png"]
    listed.unlink()
    resumed = zoo.resume(place, progress=False)
    assert (resumed.evaluation.images, resumed.preset.exclude) == (5, str(listed))
    assert main(["finetune", NAME, str(folder), "--exclude", str(listed), "-o", str(tmp_path / "other")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main(["finetune", "yolo_nas_s", str(folder), "--no-pretrained", "--exclude", str(listed)]) == 2
    assert "exclude" in capsys.readouterr().err
