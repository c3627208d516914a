from pathlib import Path

import zoo
from tools import cards

PAGE = Path(__file__).parents[2] / "MODEL_CARDS.md"


def test_the_page_is_what_the_registry_says():
    assert PAGE.read_text("utf8") == cards.write_cards(), "run make cards"


def test_every_model_has_its_card_and_pins_are_told():
    sections = {part.split()[0]: part for part in PAGE.read_text("utf8").split("\n## ")[1:]}
    assert list(sections) == zoo.list_models()
    for name, text in sections.items():
        weights = zoo.describe(name)["weights"]
        assert ("**unpinned**" in text) == (not weights["pinned"])
        assert (weights.get("revision", weights["sha256"]) or "not seen") in text
        assert weights["licence"] in text


def test_the_card_of_a_detector_tells_its_terms_and_places():
    (text,) = (part for part in PAGE.read_text("utf8").split("\n## ") if part.startswith("yolo_nas_s\n"))
    weights = zoo.describe("yolo_nas_s")["weights"]
    assert all(line in text for line in weights["notice"])
    assert all(url in text for url in weights["locations"])
    assert "ZOO_YOLO_NAS_REPO" in text
    assert "640 x 640 px RGB, the picture fitted into 636 x 636 px, center, padded with 114, divided by 255" in text
    assert "47.50 % (COCO 2017 val, 640 px)" in text
    assert "`detection-heads`" in text


def test_check_tells_an_old_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cards.main(["--check"]) == 1
    assert cards.main([]) == 0
    assert cards.main(["--check"]) == 0
    (tmp_path / "MODEL_CARDS.md").write_text("old")
    assert cards.main(["--check"]) == 1
    assert "run python -m zoo.tools.cards" in capsys.readouterr().out
