"""What every exporter has to do; an exporter's test file subclasses this and says where it writes."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from small_run import write_run
from zoo.errors import InputError
from zoo.exporters import find_exporter, list_exporters
from zoo.files.safetensors import sha256_file


class ExporterContract:
    """Checks that need a target.

    Attributes:
        name: The exporter's.
        options: For `export`.
    """

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012

    @pytest.fixture
    def target(self, tmp_path: Path) -> Any:
        """Return where it writes."""
        return tmp_path / "target"

    def export(self, run: Any, target: Any) -> Any:
        return find_exporter(self.name)(run, target, **self.options)

    def test_it_is_found_and_takes_a_run_and_a_target(self) -> None:
        assert self.name in list_exporters()
        run, target, *options = inspect.signature(find_exporter(self.name)).parameters.values()
        assert {run.kind, target.kind} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)

    def test_a_run_stays_as_it_is(self, tmp_path: Path, target: Any) -> None:
        run = write_run(tmp_path / "run").path
        before = {path: sha256_file(path) for path in sorted(run.rglob("*")) if path.is_file()}
        assert self.export(run, target) is not None
        assert {path: sha256_file(path) for path in sorted(run.rglob("*")) if path.is_file()} == before

    def test_a_run_that_is_not_finished_is_refused(self, tmp_path: Path, target: Any) -> None:
        run = write_run(tmp_path / "run").path
        (run / "state.pt").touch()
        with pytest.raises(InputError):
            self.export(run, target)

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path: Path, target: Any) -> None:
        with pytest.raises(InputError):
            self.export(tmp_path, target)
