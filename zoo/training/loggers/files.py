"""Writes the records of a run into its folder: metrics, rates, scores, proof."""

from collections.abc import Mapping
from typing import Any

from zoo.training.answers import write_answers
from zoo.training.loggers.base import Logger, RunFacts, RunResult


class Files(Logger):
    """Writes what `zoo.resume`, `zoo.push` and people read after the run."""

    order = 10
    is_required = True

    def start(self, facts: RunFacts) -> None:
        """Remember the folder."""
        self.facts = facts

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Write one line per epoch; the file is replaced as a whole, so that a killed run leaves no half line."""
        self.facts.folder.write_metrics(self.facts.records)

    def finish(self, result: RunResult) -> None:
        """Write all records."""
        folder = self.facts.folder
        folder.write_metrics(result.records)
        folder.write_rates(result.rates)
        if result.rate_changes:
            folder.write_json("rate_changes.json", result.rate_changes)
        folder.write_json("proof.json", result.proof)
        if result.evaluation is not None:
            weights = {name: kept.to_dict() for name, kept in result.weights.items()}
            folder.write_json("evaluation.json", result.evaluation.to_dict() | {"weights": weights})
            if result.status == "finished" and (answers := getattr(result.evaluation, "answers", None)):
                write_answers(folder.path, answers)


LOGGER = Files
