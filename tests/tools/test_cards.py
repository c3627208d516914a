from importlib.util import find_spec
from pathlib import Path

import pytest

import zoo
from tools import cards

PAGE = Path(__file__).parents[2] / "MODEL_CARDS.md"
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra transformers")


def section(name):
    (text,) = (part for part in PAGE.read_text("utf8").split("\n## ") if part.split()[0] == name)
    return text


@needs_transformers
def test_the_page_is_what_the_registry_says():
    assert PAGE.read_text("utf8") == cards.write_cards(), "run make cards"


def test_cards_of_every_model_tell_pins_terms_and_places():
    sections = {part.split()[0]: part for part in PAGE.read_text("utf8").split("\n## ")[1:]}
    assert list(sections) == zoo.list_models()
    for name, text in sections.items():
        weights = zoo.describe(name)["weights"]
        assert ("**unpinned**" in text) == (not weights["pinned"])
        assert (weights.get("revision", weights["sha256"]) or "not seen") in text
        assert weights["licence"] in text
    text = section("yolo_nas_s")
    weights = zoo.describe("yolo_nas_s")["weights"]
    assert all(line in text for line in weights["notice"])
    assert all(url in text for url in weights["locations"])
    assert "ZOO_YOLO_NAS_REPO" in text
    assert "640 x 640 px RGB, the image fitted into 636 x 636 px, center, padded with 114, divided by 255" in text
    assert "47.50 % (COCO 2017 val, 640 px)" in text
    assert "`detection-heads`" in text
    assert "**unpinned**: full commit and SHA-256 of this file not seen" in section("resnet34")
    assert "| Commit | not seen |" in section("resnet34")
    assert "unpinned" not in section("resnet18")
    assert "| Size | 46.8 MB |" in section("resnet18")
    weights = {"revision": "0" * 40, "sha256": None}
    assert cards._why_unpinned(weights) == "**unpinned**: SHA-256 of this file not seen"


def test_our_own_scores_are_those_of_the_presets():
    text = section("mobilenetv2_100")
    assert text.count("top-1 on the first 100 images per class of CIFAR-10") == 3
    assert "`classify-heads`: top-1 on" in text
    assert "Preset unchanged: 68.8 ± 0.3 %, 14 s." in text
    assert "| Our score | `detection-full`: YOLO-NAS S from random weights on BCCD" in section("yolo_nas_s")
    assert "Our score" not in section("resnet18")
    assert {cards._names(text) for _, text in cards._measurements()} <= set(zoo.list_models()), "each names its model"


def test_presets_are_those_of_the_family_or_of_the_task():
    assert "| Presets | `classify-heads`, `classify-exact`, `classify-low-lr`, `classify-full` |" in section("resnet50")
    assert "| Presets | `detection-heads`, `detection-low-lr`, `detection-full` |" in section("yolo_nas_l")
    told = {preset for name in zoo.list_models() for preset in cards._presets(name, zoo.describe(name)["task"])}
    assert told == set(zoo.list_presets()), "each preset is for some model"


def test_check_tells_an_old_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cards, "write_cards", lambda: "the page")
    monkeypatch.chdir(tmp_path)
    assert cards.main(["--check"]) == 1
    assert cards.main([]) == 0
    assert cards.main(["--check"]) == 0
    (tmp_path / "MODEL_CARDS.md").write_text("old")
    assert cards.main(["--check"]) == 1
    assert "run python -m zoo.tools.cards" in capsys.readouterr().out
