"""What the head of a preset answers for images that it was not shown: fold by fold, on cached features."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo._model import head_prefixes, known_config
from zoo.engine import build_inputs, cache_features, inputs_of_features, make_accelerator
from zoo.engine.frozen import HeadOnly, KeptFeatures
from zoo.errors import InputError
from zoo.optim import find_linear
from zoo.optim.solvers import PATH, Basis, FeatureRows, Head, choose_l2, make_prototypes, solve_head
from zoo.progress import Progress
from zoo.settings import Preset, plan_rates
from zoo.tasks import task_of
from zoo.training.early_stopping import Monitor
from zoo.training.head_rows import find_device, seen_by
from zoo.training.hooks import RateSetter, freeze
from zoo.training.loop import fit
from zoo.training.position import Position
from zoo.training.setup import RunParts, join_parts
from zoo.training.solved_head import find_costs

PASSES = 10  # over each image, so that features are cached; how many there will be is not known
TOLERANCE = 1e-3  # of a gradient, where heads are only compared
PIECE = 4096  # rows that go through the head at a time


class HeldOut:
    """Trains or solves heads on some of the training images, and lets them answer for the others.

    The features are those that a run caches: it finds them, and they are found if a run was there before. Validation
    images are not looked at.

    Args:
        model: A classifier with the classes of the data; its backbone stays as it is.
        opened: Data with training images.
        preset: Of the features: image size, views, where they are cached.
        show: Where a pass over all images is shown.

    Attributes:
        precision: The numbers in which the backbone runs.

    Raises:
        InputError: The features cannot be cached.
    """

    def __init__(self, model: Any, opened: Any, preset: Preset, show: Progress) -> None:
        self.model, self.opened, self.quiet = model, opened, Progress(enabled=False)
        self.task = task_of(model)
        self.task.choose_preprocess(model, preset)
        self.accelerator = make_accelerator(preset.device, preset.precision)
        model.to(self.accelerator.device, memory_format=torch.channels_last)
        plan = plan_rates(model, preset)
        freeze(model, plan, 0, norm_statistics=preset.freeze_norm_stats)
        source = self.task.make_training_source(model, opened, preset, is_frozen=True)
        if source.uncacheable_reason:
            raise InputError(f"heads are compared on cached features, but {source.uncacheable_reason}.")
        passes, how = PASSES * preset.views, (self.accelerator, show)
        supply = build_inputs(model, source, None, preset.replace(cache="auto"), plan, *how, passes=passes)
        if not supply.kept or supply.engine is None:
            raise InputError("heads are compared on cached features, and these cannot be cached: see the line above.")
        self.engine, self.kept, self.facts = supply.engine, supply.kept[0], supply.features
        self.precision = supply.engine.precision
        self.shown = self.kept if preset.views == 1 else None  # the images as they are when they are scored
        plain = self.task.make_scoring_source(model, opened.train, preset.seed)
        if dict(plain.cache_key) != dict(source.cache_key) or self.shown is None:
            name = known_config(model).get("model") or type(model).__name__
            self.shown = cache_features(model, [plain], preset, self.accelerator, show, name=name).kept[0]
        prefixes = head_prefixes(model)
        self.start = {
            name: value.clone() for name, value in model.state_dict().items() if prefixes and name.startswith(prefixes)
        }
        self._bases: dict[bool, tuple[Tensor, FeatureRows, Basis]] = {}

    def predict(
        self,
        preset: Preset,
        folds: Tensor,
        after_fold: Callable[[int, Tensor], bool] = lambda fold, logits: False,
    ) -> Tensor:
        """Return the logits of each training image from the head that was not shown its fold, `(N, C)`, on the CPU.

        Args:
            preset: The effective one; what decides the features is that of the others.
            folds: Fold of each training image, `(N,)`, 0 to K - 1.
            after_fold: Called with a fold and the logits so far; True stops: those of later folds are NaN.

        Raises:
            InputError: The preset does not fit the model or the data.
        """
        count = int(folds.max()) + 1
        if preset.solver == "exact" and preset.views == 1 and self.shown is self.kept:
            return self._solve_together(preset, folds)
        logits = torch.full((len(folds), len(self.opened.classes)), torch.nan)
        for fold in range(count):
            held, others = (folds == fold).nonzero()[:, 0], (folds != fold).nonzero()[:, 0]
            if preset.solver:
                logits[held] = self._solve(preset, others)(self._rows(is_shown=True)[0][held]).float().cpu()
            else:
                logits[held] = self._train(preset, others, held)
            if after_fold(fold, logits) and fold + 1 < count:
                break
        return logits

    def score(self, preset: Preset, logits: Tensor, images: Tensor) -> float:
        """Return the score of some images by the preset's monitor, higher is better.

        Args:
            preset: Its monitor; None: the task's first.
            logits: Of all training images, `(N, C)`.
            images: Which, `(n,)`.
        """
        classes, device = self.opened.classes, torch.device("cpu")
        evaluator = self.task.make_evaluator(self.model, classes, None, device=device)
        targets = torch.tensor(self.opened.train.targets)
        evaluator.update(evaluator.observe(logits[images], targets[images]))
        monitor = Monitor(preset.monitor or self.task.monitors[0])
        return monitor.score(monitor.record(evaluator.compute()))

    def _train(self, preset: Preset, others: Tensor, held: Tensor) -> Tensor:
        """Train a head on some images as a run does, and return the logits of the others."""
        self.model.load_state_dict({**self.model.state_dict(), **self.start})
        parts = self._make_parts(preset, others, held)
        rates = RateSetter(parts, self.quiet.log)
        step, batches = parts.make_step(rates.set), parts.supply.train
        for _ in fit(step, batches, Position(), epochs=preset.epochs, accumulate=preset.accumulate):
            pass
        parts.network.eval()
        with torch.inference_mode():
            return torch.cat([parts.network(inputs).float().cpu() for inputs, _ in parts.supply.val or ()])

    def _make_parts(self, preset: Preset, others: Tensor, held: Tensor) -> RunParts:
        train, val = (self.opened.train.subset(chosen.tolist()) for chosen in (others, held))
        data = replace(self.opened, train=train, val=val, test=None)
        plan = plan_rates(self.model, preset)
        source = self.task.make_training_source(self.model, data, preset, is_frozen=True)
        scored = self.task.make_scoring_source(self.model, val, preset.seed)
        assert self.shown is not None
        kept = [self._take(self.kept, others), self._take(self.shown, held)]
        accelerator = make_accelerator(preset.device, preset.precision)  # a new one: it holds whatever it has prepared
        supply = inputs_of_features(self.model, source, scored, kept, self.engine, preset, accelerator, self.facts)
        return join_parts(self.model, data, preset, plan, accelerator, lambda: supply, self.quiet)

    def _take(self, kept: KeptFeatures, images: Tensor) -> KeptFeatures:
        """Return the features of all views of some images."""
        count = len(self.opened.train)
        numbers = torch.cat([images + view * count for view in range(kept.count // count)])
        return KeptFeatures.in_memory(*kept.take(numbers))

    def _rows(self, *, is_shown: bool) -> tuple[Tensor, FeatureRows, Basis]:
        """Return what the last layer is shown of each image as it is scored, or of each view that is learnt from."""
        is_shown = is_shown and self.shown is not self.kept
        if is_shown not in self._bases:
            linear, kept = self._find_linear(), self.shown if is_shown else self.kept
            assert kept is not None
            head, device = HeadOnly(self.model).eval(), linear.weight.device
            pieces = []
            for start in range(0, kept.count, PIECE):
                parts, _ = kept.take(torch.arange(start, min(start + PIECE, kept.count)))
                inputs = self.engine.join([part.to(device) for part in parts])
                pieces.append(seen_by(linear, lambda inputs=inputs: head(inputs)))
            vectors = torch.cat(pieces).to(find_device(linear))
            rows = FeatureRows.of(vectors, self._labels().repeat(kept.count // len(self.opened.train)))
            self._bases[is_shown] = vectors, rows, Basis.of(rows)
        return self._bases[is_shown]

    def _labels(self) -> Tensor:
        return torch.tensor(self.opened.train.targets, device=find_device(self._find_linear()))

    def _find_linear(self) -> nn.Linear:
        return find_linear(self.model, (name for name, value in self.model.named_parameters() if value.requires_grad))

    def _find_costs(self, preset: Preset) -> Tensor:
        loss, linear = self.task.make_loss(self.model, self.opened, preset), self._find_linear()
        return find_costs(loss, len(self.opened.classes), find_device(linear))

    def _solve_together(self, preset: Preset, folds: Tensor) -> Tensor:
        """Solve the heads of all folds at the same time."""
        _, rows, basis = self._rows(is_shown=False)
        path = PATH if preset.l2 is None else (preset.l2,)
        return choose_l2(rows, self._find_costs(preset), folds.to(rows.device), basis=basis, path=path).logits.cpu()

    def _solve(self, preset: Preset, images: Tensor) -> Head:
        """Solve the head of some images, in all of their views."""
        vectors, count = self._rows(is_shown=False)[0], len(self.opened.train)
        numbers = torch.cat([images + view * count for view in range(len(vectors) // count)])
        labels = self._labels()[numbers.to(vectors.device) % count]
        rows = FeatureRows.of(vectors[numbers.to(vectors.device)], labels)
        if preset.solver == "prototype":
            return make_prototypes(rows, len(self.opened.classes))[0]
        costs = self._find_costs(preset)
        if preset.l2 is None:
            raise InputError("solver=exact with several views needs l2 here. Give it a value or a range.")
        return solve_head(rows, costs, preset.l2, tolerance=TOLERANCE).head
