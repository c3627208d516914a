import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

import zoo
from figure_checks import is_drawn
from tools.cli import main
from zoo.errors import InputError

TINY = {"image_size": 32, "device": "cpu", "num_workers": 0, "progress": False}


@pytest.fixture(scope="module")
def found(images):
    return zoo.embed(zoo.get("timm/test_resnet", num_classes=3, seed=3), images, **TINY)


def test_files_hold_every_row_with_its_name_class_split_and_what_made_it(found, tmp_path):
    with np.load(found.save(tmp_path / "f.npz")) as arrays:
        assert np.array_equal(arrays["features"], found.vectors)
        assert arrays["name"][20] == found.names[20] == "val/blue/02.png"
        assert (arrays["class"][20], arrays["split"][20]) == ("blue", "val")
        facts = json.loads(str(arrays["facts"]))
    assert facts["model"] == "timm/test_resnet"
    assert facts["preprocess"]["image_size"] == 32
    assert facts["keys"].keys() == {"train", "val"}
    table = parquet.read_table(found.save(tmp_path / "f.parquet"))
    assert table.column("name").to_pylist() == list(found.names)
    assert np.array_equal(np.array(table.column("features").to_pylist(), dtype=np.float32), found.vectors)
    assert json.loads(table.schema.metadata[b"zoo"]) == facts
    with pytest.raises(InputError, match="another ending"):
        found.save(tmp_path / "f.csv")


def test_the_nearest_is_its_copy_and_the_image_itself_is_left_out(found, images, tmp_path):
    one = images / "val" / "red" / "01.png"
    near = found.nearest(one, 5)
    assert len(near) == 5
    assert "val/red/01.png" not in [other.name for other in near]
    assert [other.similarity for other in near] == sorted((other.similarity for other in near), reverse=True)
    copy = shutil.copy(one, tmp_path / "copy.png")
    first = found.nearest(copy, 1)[0]
    assert (first.name, first.class_name, first.split) == ("val/red/01.png", "red", "val")
    assert first.similarity == pytest.approx(1, abs=1e-5)
    assert found.nearest(Image.open(copy), 1)[0] == first
    assert is_drawn(found.plot_nearest(copy, tmp_path / "near.png", 4))


def test_a_folder_without_classes_and_wrong_words(images, tmp_path, capsys):
    model = zoo.get("timm/test_resnet", num_classes=3, seed=3)
    flat = tmp_path / "flat"
    shutil.copytree(images / "val" / "red", flat)
    found = zoo.embed(model, flat, **TINY)
    assert (set(found.classes), set(found.splits), len(found)) == ({""}, {""}, 3)
    assert len(zoo.embed(model, images, unlabelled=True, **TINY)) == 27
    for words, text in (
        (["embed", "timm/test_resnet", str(images)], "nothing to do"),
        (["embed", "timm/test_resnet", str(images), "-o", "f.csv"], "another ending"),
        (["embed", "timm/test_resnet", str(images), "--nearest", "no.png"], "no such file"),
        (["embed", "timm/test_resnet", str(images), "--top", "3", "-o", "f.npz"], "--top has no effect"),
        (["embed", "yolo_nas_s", str(images), "-o", "f.npz"], "this is a detector"),
        (["embed", "timm/test_resnet", str(images), "-o", "f.npz", "--set", "epochs=3"], "epochs has no effect"),
    ):
        assert main(words) == 2
        assert text in capsys.readouterr().err
