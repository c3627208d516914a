"""Writes `report.html`: the finished run on one page."""

from zoo.training.loggers.base import Logger, RunFacts, RunResult
from zoo.training.report import write_report


class Report(Logger):
    """Writes the page last, from the files and plots that the other loggers have written."""

    order = 85

    def start(self, facts: RunFacts) -> None:
        """Remember the folder."""
        self.facts = facts

    def finish(self, result: RunResult) -> None:
        """Write the page, unless the run is asked to stop; it is finished without it, and `zoo report` writes it."""
        if result.status == "finished" and not self.facts.is_stopping():
            write_report(self.facts.folder.path)


LOGGER = Report
