"""What reads, lists, plans or explains loads no framework: all of it runs in one process, one thing after the other."""

import json
import subprocess
import sys

import pytest

from boxed_folder import write_boxed

HEAVY = [
    *("torch", "torchvision", "timm", "accelerate", "torchmetrics", "transformers", "datasets"),
    *("matplotlib.pyplot", "supervision", "faster_coco_eval"),
]
MODULES = [  # each of them is light by itself, before anything else has been loaded
    *("zoo", "zoo.progress", "zoo._figures", "zoo.data.letterbox", "zoo.data.transforms", "zoo.settings.preset"),
    *("zoo.rates.plot", "zoo.tasks.classification.plots", "zoo.tasks.detection.plots", "zoo.tasks.detection.drawing"),
]
COMMANDS = [
    *(["--help"], ["models", "--names"], ["preset", "list"], ["preset", "show", "classify-heads", "--full"]),
    *(["preset", "show", "--fields"], ["preset", "import-sg", "{recipe}"], ["data", "check", "--help"]),
    ["data", "check", "{boxes}"],
]
CODE = [
    *(f"import {module}" for module in MODULES),
    "zoo.data.transforms.Preprocess(), zoo.data.letterbox.Letterbox().place(3, 4)",
    "zoo.list_presets(), zoo.load_preset('classify-heads'), zoo.list_models()",
    "[zoo.describe(name) for name in ('resnet18', 'yolo_nas_s', 'dfine_n', 'rtdetr_v2_r18', 'rfdetr_n')]",
    "@zoo.register_model()\ndef my_net(num_classes): ...\nassert zoo.list_models('my*') == ['my_net']",
    "from zoo.rates.schedules.parse import parse_schedule as parse; parse('plateau'), parse(lambda step: 1.0)",
    "import zoo.compat.super_gradients.recipe",
    *(f"from zoo.tools.cli import main; main({command})" for command in COMMANDS),
    "from zoo.tasks.detection.data import open_box_data; open_box_data('{boxes}')",
]
PROGRAM = f"""
import json, sys
space, loaded = {{}}, {{}}
for code in json.loads(sys.argv[1]):
    before = set(sys.modules)
    exec("import zoo\\n" + code, space)
    loaded[code] = sorted((set(sys.modules) - before) & set({HEAVY}))
print("\\n" + json.dumps(list(loaded.values())))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What each of `CODE` has loaded."""
    root = tmp_path_factory.mktemp("imports")
    (root / "recipe.yaml").write_text("training_hyperparams:\n  max_epochs: 2\n")
    places = {"recipe": root / "recipe.yaml", "boxes": write_boxed(root / "boxes", train=2, val=1)}
    code = [line.replace("{recipe}", str(places["recipe"])).replace("{boxes}", str(places["boxes"])) for line in CODE]
    command = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(CODE, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("code", CODE)
def test_what_needs_no_framework_loads_none(loaded, code):
    assert loaded[code] == []


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import zoo.tasks.detection.metrics", {"torchmetrics", "faster_coco_eval"}),
        ("import zoo.compat.super_gradients.recipe", {"numpy"}),
        ("import zoo.settings.preset", {"rich"}),
        ("import zoo.tasks.detection.drawing", {"matplotlib"}),
        ("import zoo; zoo.describe('dfine_n')", {"scipy"}),
        ("from zoo.tools.cli import main; main(['data', 'check', '--help'])", {"matplotlib"}),
        ("from zoo.tools.cli import main; main(['--help'])", {"zoo.settings.preset"}),
    ],
)
def test_what_is_needed_later_is_loaded_later(code, unloaded):
    script = f"{code}\nimport sys; print('\\n', *sorted(set(sys.modules) & {unloaded!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == []
