import subprocess
import sys
import textwrap
from multiprocessing.process import current_process

import pytest

from zoo.data.worker_guard import refuse_in_worker

USE = """
import multiprocessing
from zoo.data.worker_guard import check_guard

def main():
    check_guard(2, "spawn")
    print("passed")
"""


def run(tmp_path, tail):
    script = tmp_path / "script.py"
    script.write_text(USE + textwrap.dedent(tail))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "tail",
    [
        'if __name__ == "__main__":\n    main()\n',
        "if '__main__' == __name__:\n    print()\n    main()\n",
        'if __name__ != "__main__":\n    raise SystemExit\nmain()\n',
    ],
)
def test_a_script_with_a_guard_may_start_processes(tmp_path, tail):
    done = run(tmp_path, tail)
    assert "passed" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "tail", ["main()\n", 'if __name__ == "__main__":\n    print("no")\nmain()\n', "for _ in 'a':\n    main()\n"]
)
def test_a_script_without_one_may_not(tmp_path, tail):
    done = run(tmp_path, tail)
    assert "passed" not in done.stdout
    assert "num_workers is 2, and each data-loading process would run" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr


def test_without_a_script_there_is_nothing_to_guard(tmp_path):
    done = subprocess.run([sys.executable, "-c", USE + "main()"], capture_output=True, text=True, check=False)
    assert done.stdout == "passed\n"


@pytest.mark.parametrize(("workers", "method"), [(0, "spawn"), (2, "fork")])
def test_where_nothing_is_started_anew_nothing_is_asked(tmp_path, workers, method):
    done = run(tmp_path, f"check_guard({workers}, {method!r})\nprint('passed')\n")
    assert done.stdout == "passed\n"


def test_a_process_that_imports_the_script_ends_there(monkeypatch):
    refuse_in_worker()
    monkeypatch.setattr(current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match=r"re-ran the main script and was stopped\. Put the script's code"):
        refuse_in_worker()
