"""What holds for every task: subclass `TaskContract` in the tests of a task, and give it data and a small model."""

import json
import math

import pytest
import torch
from PIL import Image

from zoo.data.preprocessing import Preprocessing
from zoo.engine.frozen.keys import make_key
from zoo.settings.preset import Preset
from zoo.tasks.base import task_of
from zoo.tasks.scores import find_scores


class TaskContract:
    """Sources, loss, evaluator and plots of a task fit together; `prepared` is a fixture of opened data and a model."""

    name: str
    preset = Preset(image_size=64, batch_size=2, seed=3)

    @pytest.fixture
    def task(self, prepared):
        task = task_of(self.name)
        task.check_options(self.preset, prepared[1])
        assert isinstance(task.choose_preprocess(prepared[1], self.preset), Preprocessing)
        return task

    def batch(self, source, places):
        """Samples of `(index, epoch)` places as the network takes them."""
        images, targets = source.collate([source.samples[place] for place in places])
        return source.prepare(images, targets, 0, 1)

    def evaluate(self, task, prepared, size):
        data, model = prepared
        source = task.make_scoring_source(model, data.val)
        evaluator = task.make_evaluator(model, data.classes, data.val, device=torch.device("cpu"))
        model.eval()
        for first in range(0, len(source), size):
            inputs, targets = self.batch(source, [(i, 0) for i in range(first, min(first + size, len(source)))])
            with torch.inference_mode():
                evaluator.update(evaluator.observe(model(inputs), targets))
        return evaluator

    def test_its_batches_are_learnt_from(self, task, prepared):
        data, model = prepared
        loss = task.make_loss(model, data, self.preset)
        source = task.make_training_source(model, data, self.preset, is_frozen=False)
        json.dumps(source.cache_key)
        for inputs, targets in (
            self.batch(source, [(0, 0), (1, 0)]),
            task.make_worst_batch(model, data, self.preset, 2),
        ):
            model.train()
            value = loss(model(inputs), targets)
            assert len(inputs) == 2
            assert math.isfinite(float(value.detach()))
            assert value.requires_grad

    def test_features_of_reduced_images_have_a_key_of_their_own(self, task, prepared):
        data, model = prepared
        keys = []
        for decode in ("fast", "full"):
            preset = self.preset.replace(decode=decode)
            task.choose_preprocess(model, preset)
            training = task.make_training_source(model, data, preset, is_frozen=True)
            keys.append(
                [make_key(dict(one.cache_key)) for one in (training, task.make_scoring_source(model, data.val))]
            )
        assert all(fast != full for fast, full in zip(*keys, strict=True))

    def test_a_sample_is_the_same_whenever_it_is_made(self, task, prepared):
        source = task.make_training_source(prepared[1], prepared[0], self.preset, is_frozen=False)
        first, second = (self.batch(source, [(1, 5), (0, 5)]) for _ in range(2))
        assert torch.equal(first[0], second[0])

    def test_targets_are_kept_as_rows(self, task, prepared):
        source = task.make_scoring_source(prepared[1], prepared[0].val)
        indices = torch.tensor([1, 0])
        _, targets = self.batch(source, [(index, 0) for index in indices.tolist()])
        rows = source.pack_targets(targets)
        again = source.unpack_targets(torch.cat(rows), torch.tensor([len(part) for part in rows]), indices)
        pairs = [(again, targets)] if isinstance(targets, torch.Tensor) else zip(again, targets, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)

    def test_the_scores_are_those_that_a_run_shows_whatever_the_batches(self, task, prepared):
        one, all_at_once = (self.evaluate(task, prepared, size).compute() for size in (1, len(prepared[0].val)))
        json.dumps(one.to_dict())
        assert {"val_loss", *task.columns, *task.curves} <= one.record().keys()
        scores = find_scores()[self.name]
        assert one.record()[next(iter(scores))] == one.score
        assert scores.items() >= task.columns.items()
        assert scores.keys() <= one.to_dict().keys()
        assert all(isinstance(row, dict) for row in one.rows())
        assert one.score == pytest.approx(all_at_once.score, abs=1e-6)
        assert {one.images, all_at_once.images} == {len(prepared[0].val)}
        assert set(task.card.scores) & one.to_dict().keys()

    def test_every_plot_is_drawn(self, task, prepared, tmp_path):
        evaluator = self.evaluate(task, prepared, 2)
        plots = task.make_plots(evaluator.compute(), evaluator.examples, prepared[0].val)
        for name, draw in plots.items():
            draw(tmp_path / name)
            with Image.open(tmp_path / name) as image:
                assert len(image.convert("L").getcolors(256)) > 10, f"{name} is almost empty"
        assert {name.removesuffix(".png") for name in plots} <= task.card.captions.keys()
