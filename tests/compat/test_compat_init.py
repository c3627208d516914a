import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["zoo.compat", "zoo.compat.super_gradients", "zoo.compat.super_gradients.recipe"])
def test_importing_loads_no_framework(module: str) -> None:
    code = f"import {module}, sys; print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
