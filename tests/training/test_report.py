import re

import numpy as np
import pytest
from PIL import Image

from html_page import Page
from small_run import EVALUATION, write_run
from training.loggers.contract import make_facts, make_records, make_result
from zoo.training.loggers import report as logger
from zoo.training.loggers.base import Loggers
from zoo.training.report import make_report, show_run, write_report
from zoo.training.run_summary import summarize_run

EVIL = "<b>&\"' </title><script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    """A finished run whose names come from somebody with bad intentions."""
    run = write_run(tmp_path / "run", seed=3)
    rows = [dict(row, **{"class": name}) for row, name in zip(EVALUATION["per_class"], [EVIL, "bee"], strict=True)]
    run.write_json("evaluation.json", EVALUATION | {"per_class": rows, "confusion": [[2, 2], [0, 4]]})
    run.write_json("data.json", {"source": f"/data/{EVIL}", "classes": [EVIL, "bee"], "counts": {"val": {EVIL: 4}}})
    run.write_json("run.json", {"status": "finished", "warnings": [EVIL]})
    run.write_json("environment.json", {"command": ["zoo", EVIL], "time": "2026-11-30T10:00:00+00:00"})
    scored = {"loss": 0.5, "val_loss": 0.6, "top1": 0.75, "seconds": 30.0}
    run.write_metrics([{"epoch": 1, **scored, "val_loss": float("nan")}, {"epoch": 2, **scored}])
    run.write_text("rates.csv", f'step,"fc {EVIL.replace(chr(34), "")}"\n0,0.01\n1,0.002\n')
    return run


def test_the_page_tells_the_run_and_nothing_in_it_is_taken_for_markup(run):
    page = Page(write_report(run.path).read_text())
    assert page.open == []
    assert not page.tags & {"script", "iframe", "object", "link", "base", "form"}
    assert all(load.startswith("data:image/") for load in page.loads)
    assert "cannot be shown" not in page.text
    for told in (
        "75.0%",
        "epoch 2\ntraining: 0.5\nvalidation: 0.6",
        "step 2\nfc <b>&' </title><script>alert(1)</script>: 0.002",
        f"true {EVIL}, predicted bee: 2 of 4 (50.0%)",
        "0.04% trained",
        "seed",
        "90 frozen tensors: the checksum of each was compared 2 times",
        "none: trained from random weights",
        f"zoo {EVIL}",
    ):
        assert told in page.text, told


def test_photographs_become_small_and_a_link_is_not_followed(run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2800, 3), np.uint8)
    Image.fromarray(noise).save(run.pictures / "mistakes.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (run.pictures / "first_batch.png").symlink_to(tmp_path / "secret.png")
    text = write_report(run.path).read_text()
    assert len(re.findall("data:image/jpeg", text)) == 1
    assert len(text) < 1_500_000


@pytest.mark.parametrize(
    "name", ["evaluation.json", "plan.json", "data.json", "proof.json", "metrics.jsonl", "rates.csv"]
)
def test_damage_is_told_and_the_rest_is_shown(run, name):
    for content in ("{", '{"groups": 3, "per_class": 3, "moments": [1], "tensors": 1, "precision": {"a": [[]]}}'):
        run.file(name).write_text(content)
        page = Page(make_report(summarize_run(run.path)))
        assert "Environment" in page.text
        assert "cannot" in page.text or name in ("rates.csv", "proof.json", "plan.json")


def test_a_page_that_cannot_be_written_does_not_end_a_run(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError("disk full")

    monkeypatch.setattr(logger, "write_report", fail)
    said = []
    loggers = Loggers([logger.Report], said.append)
    loggers.start(make_facts(tmp_path / "run"))
    loggers.finish(make_result(make_records()), required=False)
    assert said == ["note: logger Report failed and is switched off: OSError: disk full"]


def test_a_notebook_shows_scores_and_curves(run):
    page = Page(show_run(run.path))
    assert page.open == []
    assert "75.0%" in page.text
    assert "epoch 2\ntraining: 0.5" in page.text
    assert EVIL in page.text
