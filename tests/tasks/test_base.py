import pytest
from torch import nn

import zoo
from boxed_folder import write_boxed
from coloured_folder import write_coloured
from zoo.errors import InputError
from zoo.models.registry import entries
from zoo.tasks.base import TASKS, task_of
from zoo.tasks.classification.data import Data
from zoo.tasks.detection.data import BoxData


def test_a_task_is_found_by_name_by_model_and_by_entry():
    zoo.list_models()
    for entry in entries().values():
        assert task_of(entry).name == entry.task
    assert task_of(zoo.get("yolo_nas_s", num_classes=1)) is task_of("detection")
    assert task_of(nn.Linear(1, 1)) is task_of("classification")
    with pytest.raises(InputError, match=r"the task 'segmentation' is unknown; expected classification or detection"):
        task_of("segmentation")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_a_record_holds_is_what_is_shown(task):
    assert next(iter(task.columns)) == next(iter(task.curves))


def test_data_is_opened_for_a_task(tmp_path):
    images, boxes = write_coloured(tmp_path / "images", train=2, val=1), write_boxed(tmp_path / "boxes", train=3, val=2)
    assert isinstance(zoo.open_data(images), Data)
    assert isinstance(zoo.open_data(boxes, task="detection"), BoxData)
