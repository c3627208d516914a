from importlib.metadata import version

import zoo
from zoo._version import VERSION


def test_the_installed_version_is_the_one_in_the_file():
    assert version("zoo-finetune") == VERSION == zoo.__version__
