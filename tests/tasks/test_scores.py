import subprocess
import sys

from zoo.tasks.base import task_names
from zoo.tasks.scores import find_scores


def test_every_task_names_its_scores():
    assert list(find_scores()) == task_names()
    assert next(iter(find_scores()["classification"].items())) == ("top1", "top-1")
    assert next(iter(find_scores()["detection"].items())) == ("map", "mAP")


def test_the_names_need_no_framework():
    code = "import sys; from zoo.tasks import find_scores; find_scores(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
