"""A head that is solved instead of trained in steps: its features, its penalty, and what is written of it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zoo._model import head_prefixes
from zoo.data import mix_seeds
from zoo.errors import InputError, Interrupted
from zoo.optim import LiveRates, find_linear
from zoo.optim.solvers import Basis, Choice, FeatureRows, Head, choose_l2, make_folds, make_prototypes, solve_head
from zoo.progress import Progress
from zoo.training.head_rows import read_rows
from zoo.training.loop import EpochResult
from zoo.training.position import Position
from zoo.training.run_folder import SOLUTION, RunFolder
from zoo.training.setup import RunParts

FOLDS = 5
FEW = 2  # images per class up to which class means are as good: docs/how-to/exact-head.md
NO_CHOICE = 1.0  # penalty where each class has one image, so that none can be held out
AGREE = 1e-4  # a loss differs by less from the one that its cost matrix says


class HeadSolver:
    """Solves the head of a run.

    Args:
        parts: Of the run; what its plan trains is one linear layer.
        folder: Gets `solution.json`.
        show: Told what is found.
        is_stopping: Whether the run is asked to stop.
    """

    def __init__(self, parts: RunParts, folder: RunFolder, show: Progress, is_stopping: Callable[[], bool]) -> None:
        self.parts, self.folder, self.show, self.is_stopping = parts, folder, show, is_stopping
        if parts.accelerator.num_processes > 1:
            raise InputError("solver works in one process. Start the run without accelerate launch or torchrun.")
        trained = (name for group in parts.plan.trained for name in group.names)
        prefixes = head_prefixes(parts.model)
        head = (name for name, _ in parts.model.named_parameters() if name.startswith(prefixes))
        self.linear = find_linear(parts.model, trained if parts.preset.solver else head)

    def epochs(self, position: Position, rates: LiveRates) -> Iterator[EpochResult]:
        """Solve the head, and yield the result of the only epoch.

        Args:
            position: Moved to the end of the epoch.
            rates: Get the only step of the run on record, with a rate of 0.
        """
        began = time.perf_counter()
        try:
            loss, count = self.solve(self.parts.preset.solver or "exact")
        except Interrupted:
            raise KeyboardInterrupt from None  # nothing was done yet that could be resumed
        rates.take(position.step)
        seconds = time.perf_counter() - began
        position.epoch, position.step = 1, 1
        yield EpochResult(1, 1, loss, count / max(seconds, 1e-9), 0.0, seconds)

    def solve(self, solver: str) -> tuple[float, int]:
        """Solve the head as `solver` says, put it into the model, and return its mean loss and the number of rows."""
        began = time.perf_counter()
        rows, images = read_rows(self.parts, self.linear)
        classes = len(self.parts.data.classes)
        if solver == "auto":
            solver = "prototype" if int(images.max()) + 1 <= FEW * classes else "exact"
            self.show.log(f"solver=auto: {solver}, for {(int(images.max()) + 1) / classes:.3g} images per class")
        facts: dict[str, Any] = {
            "solver": solver,
            "rows": len(rows),
            "images": int(images.max()) + 1,
            "features": rows.width,
        }
        if solver == "prototype":
            _check_all_present(rows.labels, self.parts.data.classes)
            head, sharpness = make_prototypes(rows, classes)
            facts["sharpness"] = sharpness
        else:
            head, found = self._solve_exactly(rows, images)
            facts |= found
        self._put(head)
        if self.parts.average is not None:
            self.parts.average.model.load_state_dict(self.parts.model.state_dict())
        loss = self._mean_loss(rows, head)
        facts |= {"loss": loss, "seconds": round(time.perf_counter() - began, 3)}
        self.folder.write_json(SOLUTION, facts)
        self.show.log(_tell(facts))
        return loss, len(rows)

    def _solve_exactly(self, rows: FeatureRows, images: Tensor) -> tuple[Head, dict[str, Any]]:
        costs = find_costs(self.parts.loss, len(self.parts.data.classes), rows.device)
        basis = Basis.of(rows)
        choice = self._choose(rows, images, costs, basis)
        l2 = self.parts.preset.l2 or (choice.l2 if choice else NO_CHOICE)
        start = choice.start if choice else None
        found = solve_head(rows, costs, l2, basis=basis, start=start, is_stopping=self.is_stopping)
        facts: dict[str, Any] = {"l2": l2, "objective": found.objective, "cost": found.cost, "gradient": found.gradient}
        if choice is not None:
            facts |= {"folds": choice.folds, "path": [point._asdict() for point in choice.path]}
        return found.head, facts | {"passes": found.passes}

    def _choose(self, rows: FeatureRows, images: Tensor, costs: Tensor, basis: Basis) -> Choice | None:
        """Choose the penalty within the training images; None if it is given, or no image can be held out."""
        if self.parts.preset.l2 is not None:
            return None
        count = int(images.max()) + 1
        of_image = torch.empty(count, dtype=torch.int64, device=rows.device)
        of_image[images] = rows.labels
        most = int(of_image.bincount().max())
        if most < 2:
            self.show.log(f"note: each class has one image, so l2 cannot be chosen from the data; it is {NO_CHOICE:g}")
            return None
        folds = make_folds(of_image, min(FOLDS, most), seed=mix_seeds(self.parts.preset.seed, 0))
        with self.show.counting("choosing the L2 penalty") as advance:
            how: dict[str, Any] = {"basis": basis, "on_progress": advance, "is_stopping": self.is_stopping}
            return choose_l2(rows, costs, folds[images], **how)

    @torch.no_grad()
    def _put(self, head: Head) -> None:
        if not bool(head.weight.isfinite().all() & head.bias.isfinite().all()):
            raise InputError("the head cannot be solved: its weights are no finite numbers. Are the features?")
        self.linear.weight.copy_(head.weight)
        if self.linear.bias is not None:
            self.linear.bias.copy_(head.bias)

    @torch.no_grad()
    def _mean_loss(self, rows: FeatureRows, head: Head) -> float:
        total = 0.0
        for where, piece in rows.pieces(torch.float32):
            logits = head(piece.double() * rows.scale + rows.mean).float()
            total += float(self.parts.loss(logits, rows.labels[where])) * len(piece)
        return total / len(rows)


def find_costs(loss: Callable[[Any, Any], Tensor], classes: int, device: torch.device) -> Tensor:
    """Return the cost matrix of a run's loss, which is found by asking it: `costs[y, c]` weighs `-log p_c`.

    Args:
        loss: Turns logits `(N, C)` and class numbers `(N,)` into their mean loss.
        classes: Their number, C.
        device: Of the logits.

    Raises:
        InputError: The loss is no weighted cross-entropy.
    """
    labels = torch.arange(classes, device=device)
    generator = torch.Generator().manual_seed(0)
    first, second, third = torch.randn(3, classes, classes, generator=generator).to(device)
    (p, slope), (q, other) = (_find_slope(loss, point, labels) for point in (first, second))
    sums = ((slope - other) * (p - q)).sum(1) / (p - q).square().sum(1)  # slope = sum of the row * p - row
    costs = (sums[:, None] * p - slope).double()
    costs = torch.where(costs.abs() < AGREE, torch.zeros_like(costs), costs)
    expected = -(costs * third.double().log_softmax(1)).sum() / classes
    value = loss(third, labels).double()
    if not bool((expected - value).abs() <= AGREE * value.abs()) or bool((costs < 0).any()):
        raise InputError(
            "the head cannot be solved: the loss is no cross-entropy with weights of classes and label smoothing. "
            "Train it in steps, without solver."
        )
    return costs


def _find_slope(loss: Callable[[Any, Any], Tensor], logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities, and the gradient of the summed loss."""
    point = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(point, labels) * len(labels), point)
    return logits.softmax(1), slope


def _check_all_present(labels: Tensor, classes: Any) -> None:
    missing = [name for name, count in zip(classes, labels.bincount(minlength=len(classes)), strict=True) if not count]
    if missing:
        raise InputError(
            f"solver=prototype needs an image of every class; {', '.join(map(repr, missing[:10]))} has none in train."
        )


def _tell(facts: dict[str, Any]) -> str:
    rows = f"{facts['rows']:,} rows of {facts['features']:,} features"
    if facts["solver"] == "prototype":
        return f"head solved by class means: {rows}, in {facts['seconds']:.1f} s"
    how = f"chosen of {len(facts['path'])} by {facts['folds']}-fold cross-validation" if "path" in facts else "given"
    return (
        f"head solved exactly: {rows}, L2 penalty {facts['l2']:.3g} ({how}), gradient {facts['gradient']:.0e} of "
        f"its start, in {facts['seconds']:.1f} s"
    )
