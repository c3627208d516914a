import os
import subprocess
import sys

import pytest

from small_run import write_run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("zoo finetune resnet3", ["resnet34"]),
        ("zoo finetune --mode l", ["low_lr"]),
        ("zoo finetune --preset classify-f", ["classify-full"]),
        ("zoo finetune --set ema_w", ["ema_warmup="]),
        ("zoo finetune --resume runs/ga", ["runs/garden"]),
        ("zoo predict runs/", ["runs/garden"]),
        ("zoo predict mobilenetv2_1", ["mobilenetv2_100", "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140"]),
        ("zoo weig", ["weights"]),
        ("zoo finetune resnet18 r", []),  # data: the shell completes files
    ],
)
def test_a_shell_completes_names_without_loading_a_framework(words, expected, tmp_path):
    write_run(tmp_path / "runs" / "garden")
    (tmp_path / "runs" / "other").mkdir()
    code = (
        "import sys\nfrom zoo.tools.cli import main\n"
        "try:\n    main([])\nfinally:\n    print(*{'torch', 'timm'} & set(sys.modules), file=sys.stderr)"
    )
    env = os.environ | {
        "_ZOO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == expected
    assert done.stderr.strip() == ""
