import csv
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from boxed_folder import write_boxed
from image_files import write_image, write_tree
from tools.data_commands import app
from zoo.errors import DataError, InputError
from zoo.tasks.classification import open_data


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["split", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", {"cat": 20, "dog": 10})


def test_the_table_trains_as_it_is(folder: Path) -> None:
    result = run(folder, "--val", "0.2", "--test", "0.1", "--stratified")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert {"class train val test", "cat 14 4 2", "dog 7 2 1", "all 21 6 3"} <= set(lines)
    table = folder.with_name("data-split.csv")
    data = open_data(table)
    counts = [Counter(images.targets) for images in (data.train, data.val, data.test) if images]
    assert counts == [{0: 14, 1: 7}, {0: 4, 1: 2}, {0: 2, 1: 1}]
    text = table.read_text()
    assert isinstance(run(folder).exception, InputError)
    table.unlink()
    run(folder, "--val", "0.2", "--test", "0.1", "--stratified")
    assert table.read_text() == text


def test_a_table_elsewhere_says_where_its_images_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    result = run(folder, "--group-by", r"/(\d)", "--stratified", "-o", tmp_path / "other/t.csv")
    assert f"--image-root {folder}" in result.output
    with (tmp_path / "other/t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == set("0123456789")
    assert len({(row["group"], row["split"]) for row in rows}) == 10
    assert open_data(tmp_path / "other/t.csv", image_root=folder).classes == ("cat", "dog")


def test_what_cannot_be_split_is_told_with_numbers(folder: Path, tmp_path: Path) -> None:
    write_image(folder / "owl/0.png")

    def refuse(kind: type[Exception], text: str, *arguments: str | Path) -> None:
        error = run(*arguments).exception
        assert isinstance(error, kind)
        assert text in str(error)

    refuse(DataError, "owl: 1 train, 0 val\nEach class needs 2 images", folder, "--stratified")
    refuse(DataError, "val would be empty: there are 31 images in 1 group", folder, "--group-by", "/")
    refuse(InputError, "finds no group in 20 of 31 paths:\n  cat/0.png", folder, "--group-by", "dog|owl")
    refuse(InputError, "val 0.6 and test 0.4; expected", folder, "--val", "0.6", "--test", "0.4")
    refuse(InputError, "has boxes", write_boxed(tmp_path / "cells", train=2, val=1))
    refuse(InputError, "has splits already: train, val", write_tree(tmp_path / "s", {"train/a": 1, "val/a": 1}))
