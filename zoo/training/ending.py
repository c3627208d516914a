"""What a run leaves in its folder when it ends, finished or interrupted."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.files import read_tensors, save_tensors
from zoo.optim import digest_tensor, set_mode
from zoo.progress import Progress
from zoo.training.kept_weights import KeptWeights
from zoo.training.loggers import Loggers, RunResult
from zoo.training.run_folder import LAST, WEIGHTS, RunFolder
from zoo.training.run_stage import RECORD
from zoo.training.state import RunState
from zoo.training.verdict import list_warnings


class Ending:
    """Writes the weights and the results of a run.

    Args:
        folder: The run's.
        state: Of the run.
        loggers: Those of the main process.
        show: Where warnings are shown.
    """

    def __init__(self, folder: RunFolder, state: RunState, loggers: Loggers, show: Progress) -> None:
        self.folder, self.state, self.loggers, self.show = folder, state, loggers, show

    def score(self) -> None:
        """Score the run if its last epoch was not, for example because a callback has ended it."""
        parts, state = self.state.parts, self.state
        set_mode(parts.optimizer, learn=False)
        is_scored = not state.position.batch and "val_loss" in state.records[-1]
        if not is_scored and parts.supply.val is not None:
            state.scores.take(parts.final_model)

    def finish(self) -> RunResult:
        """Load the weights that the run keeps, and write them and all results."""
        parts, scores = self.state.parts, self.state.scores
        if parts.mean is not None and parts.mean.epochs:
            scores.try_mean(parts.mean)
        kept, last = self._choose()
        parts.model.load_state_dict(scores.best.weights or parts.final_model.state_dict())
        if scores.best.weights is not None:
            scores.recall_best()
        scores.calibrate()
        parts.accelerator.wait_for_everyone()
        parts.accelerator.unwrap_model(parts.network, keep_fp32_wrapper=False)
        parts.model.eval().to(memory_format=torch.contiguous_format)
        if parts.is_main:
            self._write_model(last)
        result = self._collect("finished", kept)
        if parts.is_main:
            self.loggers.finish(result, required=True)
            self._write_record("finished", pictures=False, stopped_early=scores.monitor.find_stop(self.state.records))
            self.folder.drop_state()  # plots, and what other loggers make, do not decide whether a run is finished
            for warning in self._list_warnings():
                self.show.log(f"warning: {warning}")
            self.loggers.finish(result, required=False)
        return result

    def interrupt(self) -> None:
        """Write the weights and results of a run whose state is saved and that can be resumed."""
        parts = self.state.parts
        set_mode(parts.optimizer, learn=False)  # what the state holds is to be learnt on
        if parts.is_main:
            self.folder.save_model(parts.model, parts.final_model.state_dict())
            self.folder.seal()
            result = self._collect("interrupted", {})
            self.loggers.finish(result, required=True)
            self._write_record("interrupted")
            self.loggers.finish(result, required=False)
        parts.accelerator.wait_for_everyone()  # a launcher ends the others as soon as one process has ended

    def _write_model(self, last: Mapping[str, Tensor]) -> None:
        """Write the weights, and prove that what was frozen is in the file as it was.

        Args:
            last: The weights of the last epoch, to be kept beside the best; empty if they are not.
        """
        model, proof = self.state.parts.model, self.state.frozen.proof
        self.folder.save_model(model, model.state_dict())
        if last:
            save_tensors(last, self.folder.file(LAST), {"format": "pt", "library": "zoo"})
        written = read_tensors(self.folder.file(WEIGHTS))
        found = {name: digest_tensor(value) for name, value in written.items() if name in proof.digests}
        proof.compare(proof.digests | found, f"in {WEIGHTS}")
        self.folder.seal()

    def _choose(self) -> tuple[dict[str, KeptWeights], dict[str, Tensor]]:
        """Return what each file of weights is to hold, and the weights of the last epoch if they stand beside."""
        state, parts, best = self.state, self.state.parts, self.state.scores.best
        of_epoch = {record["epoch"]: record for record in state.records}
        averaged = parts.average is not None
        end = state.position.epoch + bool(state.position.batch)
        last = KeptWeights((end,), None, averaged, of_epoch.get(end, {}))
        if best.weights is None:
            return {WEIGHTS: last}, {}
        metrics = of_epoch[best.epochs[0]] if len(best.epochs) == 1 else {}
        is_best = parts.preset.keep != "last" and best.score > -math.inf
        chosen_by = state.scores.monitor.key if is_best else None
        kept = {WEIGHTS: KeptWeights(best.epochs, chosen_by, averaged, metrics)}
        if parts.preset.keep != "both":
            return kept, {}
        tensors = parts.final_model.state_dict()
        return kept | {LAST: last}, {name: value.cpu().clone() for name, value in tensors.items()}

    def _collect(self, status: Literal["finished", "interrupted"], kept: Mapping[str, KeptWeights]) -> RunResult:
        state, scores, live = self.state, self.state.scores, self.state.rates.live
        return RunResult(
            status=status,
            records=state.records,
            rates=live.history,
            rate_changes=live.changes,
            proof=state.frozen.proof.to_dict(),
            evaluation=scores.evaluation,
            examples=scores.examples,
            weights=kept,
        )

    def _write_record(self, status: str, **facts: Any) -> None:
        position = asdict(self.state.position)
        self.folder.write_json(RECORD, {"status": status, **position, "warnings": self._list_warnings(), **facts})

    def _list_warnings(self) -> list[str]:
        return list_warnings(self.state.position, self.state.records, self.state.scores.evaluation)
