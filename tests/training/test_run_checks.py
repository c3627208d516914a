import shutil
from types import SimpleNamespace

import pytest

from zoo.errors import InputError, StorageError
from zoo.models import get
from zoo.settings import Preset
from zoo.training import run_checks
from zoo.training.run_checks import check_run

NAME = "timm/test_resnet"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(preset, **options):
    with pytest.raises((InputError, StorageError)) as caught:
        check_run(preset, **options)
    return str(caught.value)


def test_nothing_is_written_and_the_plan_is_returned(here):
    assert check_run(Preset(model=NAME), data=here, out=here / "runs" / "new") is not None
    assert list(here.iterdir()) == []


def test_all_is_told_at_once(here):
    (here / "used").mkdir()
    (here / "used" / "file").touch()
    text = refusal(Preset(model="resnet81", optimizer="SDG"), data="nowhere", out="used")
    keys = ("options: 4 errors.", "unknown model 'resnet81'", "unknown optimizer 'SDG'", "nowhere'")
    assert all(key in text for key in (*keys, "used exists and is not empty"))


def test_model_and_data_in_each_others_place(here):
    (here / "flowers").mkdir()
    assert "swap them; the model comes first" in refusal(Preset(model="flowers"), data="resnet18")


def test_a_folder_that_cannot_hold_the_run(here, monkeypatch):
    (here / "file").touch()
    assert "is a file. Choose another" in refusal(Preset(), out="file/run")
    monkeypatch.setattr(run_checks.os, "access", lambda path, mode: path != here)
    assert "is not writable" in refusal(Preset())
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    needed = 2 * sum(value.nbytes for name, value in get(NAME).state_dict().items() if not name.startswith("fc"))
    text = refusal(Preset(model=NAME), out=here / "run")
    assert f"needs at least {needed / 1e6:,.1f} MB" in text
    assert f"needs at least {2 * needed / 1e6:,.1f} MB" in refusal(Preset(model=NAME, ema_decay=0.9), out=here / "run")
