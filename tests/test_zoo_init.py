import subprocess
import sys

import pytest

import zoo

HEAVY = {"torch", "torchvision", "timm", "matplotlib", "accelerate", "torchmetrics", "transformers"}


@pytest.mark.parametrize(
    "code",
    [
        "import zoo",
        "import zoo; zoo.list_presets(); zoo.load_preset('classify-heads')",
        "import zoo; zoo.list_models(); zoo.describe('resnet18')",
        "from zoo.tools.cli import main; main(['preset', 'list'])",
        "from zoo.tools.cli import main; main(['--help'])",
        "from zoo.tools.cli import main; main(['models', '--names'])",
    ],
)
def test_what_needs_no_framework_loads_none(code):
    script = f"{code}\nimport sys; print('\\n', *sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == []


def test_help_waits_for_nothing_that_checks_presets():
    script = "from zoo.tools.cli import main; main(['--help']); import sys"
    script += "; print('\\n', 'zoo.settings.preset' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["False"]


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert set(dir(zoo)) >= {"get", "finetune", "plan", "evaluate", "load", "list_models", "describe"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="finetun"):
        _ = zoo.finetun
