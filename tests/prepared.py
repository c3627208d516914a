"""Scripts in processes of their own, real ones that can be killed, without the seconds that their imports take.

They are forked from a server that has imported what most of them need, and has done nothing else.
"""

import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["matplotlib.backends.backend_agg", "timm", "torchmetrics", "torchvision.transforms.v2", "zoo.training.run"]
)


class Prepared:
    """Runs a script; its outputs are kept in a folder, and `variables` are put into its environment."""

    def __init__(self, script: str, folder: Path, **variables: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.process = SERVER.Process(target=_run, args=(script, folder, os.environ | variables))
        self.process.start()

    def wait(self, seconds: float = 300) -> SimpleNamespace:
        """Return `returncode`, `stdout` and `stderr`, as `subprocess.run` does."""
        self.process.join(seconds)
        self.process.kill()  # if it has not ended
        self.process.join()
        outputs = {name: (self.folder / name).read_text() for name in ("stdout", "stderr")}
        return SimpleNamespace(returncode=self.process.exitcode, **outputs)


def _run(script: str, folder: Path, environment: dict[str, str]) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    exec(script, {"__name__": "__main__"})
