import pytest

from small_run import write_run
from tools.cli import main
from tools.places import check_order, load_model
from zoo.errors import InputError, ZooError


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with a run and images, in which to work."""
    write_run(tmp_path / "runs" / "garden")
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("runs/gardn", r"there is no folder or file 'runs/gardn'. Did you mean 'garden'\?"),
        ("./nope", r"there is no folder or file './nope'"),
        ("resnet1", r"there is no folder 'resnet1', and no model: unknown model 'resnet1'. Did you mean 'resnet18'"),
        ("flowers", r"flowers is not a run"),
    ],
)
def test_what_is_neither_run_nor_model_is_told_without_asking_the_hub(desk, hub, word, text):
    with pytest.raises(ZooError, match=text):
        load_model(word)
    assert not hub.requests


def test_a_device_that_is_not_there_is_told_first(desk, hub):
    with pytest.raises(InputError, match="device 'tpu' is not available"):
        load_model("resnet18", device="tpu")
    assert not hub.requests


@pytest.mark.parametrize("second", ["runs/garden", "resnet18"])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_run_and_data_the_wrong_way_round(desk, capsys, command, second):
    assert main([command, "flowers", second]) == 2
    assert f"the run comes first. zoo {command} {second} flowers" in capsys.readouterr().err


def test_the_right_order_passes(desk):
    check_order("evaluate", "runs/garden", "flowers")
    check_order("evaluate", "resnet18", "flowers")
    check_order("evaluate", "flowers", "nothing")
    with pytest.raises(InputError, match="the run comes first"):
        check_order("evaluate", "flowers", "resnet18")
