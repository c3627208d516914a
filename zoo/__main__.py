"""`python -m zoo`: the command `zoo`."""

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("zoo.tools.cli").main())  # in the repository, tools/ lies beside the package
