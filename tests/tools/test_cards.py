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
        assert (weights["revision"] or "not seen") in text
        assert weights["licence"] in text


def test_check_tells_an_old_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cards.main(["--check"]) == 1
    assert cards.main([]) == 0
    assert cards.main(["--check"]) == 0
    (tmp_path / "MODEL_CARDS.md").write_text("old")
    assert cards.main(["--check"]) == 1
    assert "run python -m zoo.tools.cards" in capsys.readouterr().out
