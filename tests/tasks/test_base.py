import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import zoo
from boxed_folder import write_boxed
from coloured_folder import write_coloured
from zoo.errors import InputError
from zoo.models.registry import entries
from zoo.tasks.base import Task, task_names, task_of
from zoo.tasks.classification.data import Data
from zoo.tasks.detection.data import BoxData


def test_a_task_is_found_by_name_by_model_and_by_entry():
    zoo.list_models()
    for entry in entries().values():
        assert task_of(entry).name == entry.task
    assert task_of(zoo.get("yolo_nas_s", num_classes=1)) is task_of("detection")
    assert task_of(nn.Linear(1, 1)) is task_of("classification")
    with pytest.raises(InputError, match="unknown task 'cooking'; expected classification or detection"):
        task_of("cooking")


def test_tasks_are_found_by_their_folders_without_torch():
    assert {"classification", "detection"} <= set(task_names())
    code = "import sys, zoo.tasks.base as base; base.task_names(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", task_names())
def test_a_task_keeps_what_its_interface_says(name):
    task = task_of(name)
    assert task.name == name
    for member in vars(Task):
        assert member.startswith("_") or hasattr(task, member), member
    assert set(task.card.scores) <= set(task.curves)
    assert next(iter(task.columns)) == next(iter(task.curves))


def test_data_is_opened_for_a_task(tmp_path):
    images, boxes = write_coloured(tmp_path / "images", train=2, val=1), write_boxed(tmp_path / "boxes", train=3, val=2)
    assert isinstance(zoo.open_data(images), Data)
    assert isinstance(zoo.open_data(boxes, task="detection"), BoxData)
