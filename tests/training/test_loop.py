import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.engine.accelerator import make_accelerator
from zoo.engine.micro_batches import MicroBatchSize
from zoo.errors import DataError, TrainingError
from zoo.tasks.detection.batches import BoxTargets
from zoo.training.loop import EpochResult, fit
from zoo.training.position import Position
from zoo.training.step import TrainingStep


class Batches:
    """Batches in memory, in an order of its own for each epoch; `length` may lie."""

    def __init__(self, images=24, size=4, length=None):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(images, 6, generator=generator)
        self.targets = torch.randint(3, (images,), generator=generator)
        self.size, self.length = size, length

    def __len__(self):
        return self.length or -(-len(self.images) // self.size)

    def epoch(self, epoch, start_batch=0):
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(self.size)[start_batch:]:
            yield self.images[rows], self.targets[rows]


def make_network(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def train(
    network,
    batches,
    *,
    loss=functional.cross_entropy,
    position=None,
    optimizer=None,
    accelerator=None,
    lr=0.1,
    epochs=1,
    accumulate=1,
    stop_after=None,
    after_step=None,
    set_rates=lambda position: None,
    **options,
):
    """Run to the end, or until some step; return what each epoch gave."""
    optimizer = optimizer or torch.optim.SGD(network.parameters(), lr=lr)
    accelerator = accelerator or make_accelerator("cpu")
    step = TrainingStep(network, loss, optimizer, accelerator, set_rates=set_rates, **options)
    after_step = after_step or (lambda position, loss: position.step == stop_after)
    loop = fit(step, batches, position or Position(), epochs=epochs, accumulate=accumulate, after_step=after_step)
    return list(loop)


def train_by_hand(network, batches, *, epochs=1, lr=0.1, clip=None):
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    network.train()
    for epoch in range(epochs):
        for images, targets in batches.epoch(epoch):
            optimizer.zero_grad()
            functional.cross_entropy(network(images), targets).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
    return network


def assert_same(one, other, *, tolerance=0.0):
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("images", [24, 22])
def test_it_is_the_loop_that_one_writes_by_hand(images):
    network = make_network()
    train(network, Batches(images), epochs=3)
    assert_same(network, train_by_hand(make_network(), Batches(images), epochs=3))


def test_gradients_are_clipped_all_together():
    network = make_network()
    train(network, Batches(), clip_grad_norm=0.05)
    assert_same(network, train_by_hand(make_network(), Batches(), clip=0.05))
    network = make_network()
    before = nn.utils.parameters_to_vector(network.parameters()).detach()
    train(network, Batches(4), lr=1.0, clip_grad_norm=0.05)
    moved = nn.utils.parameters_to_vector(network.parameters()).detach() - before
    assert float(moved.norm()) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(("images", "steps"), [(24, 2), (32, 3)])  # 32: the last window has two batches of three
def test_accumulated_batches_are_one_big_batch(images, steps):
    network, position = make_network(), Position()
    train(network, Batches(images, size=4), accumulate=3, position=position)
    assert position.step == steps
    assert_same(network, train_by_hand(make_network(), Batches(images, size=12)), tolerance=1e-6)


def test_a_loss_that_is_no_number_or_a_loader_that_ends_early_is_told():
    batches = Batches()
    batches.images[int(torch.randperm(24, generator=torch.Generator().manual_seed(0))[9])] = math.nan
    position = Position()
    with pytest.raises(TrainingError, match="the loss is nan at optimizer step 3, epoch 1: the cached features"):
        train(make_network(), batches, position=position)
    assert position.step == 2
    assert position.first_loss <= position.highest_loss
    with pytest.raises(TrainingError, match="the training data ended after 6 of 8 batches"):
        train(make_network(), Batches(24, size=4, length=8))


@pytest.mark.parametrize("batch", [torch.zeros(3, 6), 7, (torch.zeros(2, 6), torch.zeros(2), None)])
def test_batches_that_are_no_pairs_are_told(batch):
    batches = Batches()
    batches.epoch = lambda epoch, start_batch: iter([batch])
    with pytest.raises(TrainingError, match=r"a batch is not an \(images, targets\) pair"):
        train(make_network(), batches)


def test_errors_of_the_loader_keep_their_text():
    def fail(epoch, start_batch):
        raise DataError("image 'cat/7.jpg': cut off")
        yield

    batches = Batches()
    batches.epoch = fail
    with pytest.raises(DataError, match=r"^image 'cat/7\.jpg': cut off$"):
        train(make_network(), batches)


@pytest.mark.parametrize("stop_after", [1, 4, 6, 7, 9])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(stop_after, accumulate):
    options = {"epochs": 3, "seed": 5, "accumulate": accumulate}
    straight, whole = make_network(dropout=0.5), Position()
    results = train(straight, Batches(22), position=whole, **options)

    network, position = make_network(dropout=0.5), Position()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    first = train(network, Batches(22), position=position, optimizer=optimizer, stop_after=stop_after, **options)
    assert position.step == stop_after
    steps_per_epoch = 6 // accumulate
    assert (position.epoch, position.batch) == (
        (stop_after - 1) // steps_per_epoch,
        ((stop_after - 1) % steps_per_epoch + 1) * accumulate,
    )
    torch.manual_seed(99)  # what happens in between does not matter
    rest = train(network, Batches(22), position=Position(**vars(position)), optimizer=optimizer, **options)
    assert_same(network, straight)
    assert [result.loss for result in first + rest] == [result.loss for result in results]
    assert [result.step for result in first + rest] == [result.step for result in results]


def test_dropout_depends_on_the_seed_and_changes_from_step_to_step():
    masks = []
    network = make_network(dropout=0.5)
    network[2].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    network[1] = nn.Sigmoid()  # never 0, so that only dropout makes zeros
    for seed in (0, 0, 1):
        train(network, Batches(8), epochs=2, seed=seed)
    zero, again, other = masks[:4], masks[4:8], masks[8:]
    assert all(torch.equal(a, b) for a, b in zip(zero, again, strict=True))
    assert len({mask.numpy().tobytes() for mask in zero + other}) == 8


def test_the_result_of_an_epoch():
    position, network = Position(), make_network()
    results = train(network, Batches(22), lr=0.0, epochs=2, position=position)
    data = Batches(22)
    mean = float(functional.cross_entropy(network(data.images), data.targets).detach())
    assert [(result.epoch, result.step) for result in results] == [(1, 6), (2, 12)]
    for result in results:
        assert isinstance(result, EpochResult)
        assert result.loss == pytest.approx(mean, rel=1e-5)  # over images: the last batch has two of four
        assert result.seconds > 0
        assert result.images_per_second == pytest.approx(22 / result.seconds)
        assert 0 < result.waiting < 1
    assert position == Position(epoch=2, step=12)


def test_hooks_are_called_once_for_each_step():
    before, after = [], []
    train(
        make_network(),
        Batches(20),
        accumulate=2,
        epochs=2,
        set_rates=lambda position: before.append((position.epoch, position.step)),
        after_step=lambda position, loss: after.append((position.epoch, position.step, position.batch, loss)),
    )
    assert before == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert [entry[:3] for entry in after] == [(0, 1, 2), (0, 2, 4), (0, 3, 5), (1, 4, 2), (1, 5, 4), (1, 6, 5)]
    assert all(math.isfinite(loss) for *_, loss in after)


def test_rates_set_before_a_step_hold_for_it():
    network = make_network()
    before = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def set_rate(position):
        optimizer.param_groups[0]["lr"] = 0.0

    train(network, Batches(), optimizer=optimizer, set_rates=set_rate)
    assert_same(network, before)


def test_frozen_parameters_get_no_gradient_and_the_network_learns_in_train_mode():
    network, modes = make_network(), []
    network.eval()
    network[0].requires_grad_(False)
    network.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    before = network[0].weight.clone()
    train(network, Batches(8), clip_grad_norm=1.0)
    assert modes == [True, True]
    assert torch.equal(network[0].weight, before)
    assert network[0].weight.grad is None


def test_a_network_that_asks_for_the_targets_is_shown_them():
    seen = []

    class Curious(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_network()

        def forward(self, images, targets):
            seen.append(targets)
            return self.inner(images)

    train(Curious(), Batches(), shows_targets=True)
    assert len(seen) == len(Batches())
    assert all(isinstance(targets, torch.Tensor) for targets in seen)


class Full(torch.autograd.Function):
    """Passes images on; in its backward pass memory runs out above a number of them."""

    @staticmethod
    def forward(context, images, most):
        context.most = most
        return images.clone()

    @staticmethod
    def backward(context, gradient):
        if len(gradient) > context.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return gradient, None


class Cramped(nn.Module):
    """A network with a norm that learns, in whose passes memory runs out above `most` images; `seen` are the sizes."""

    def __init__(self, most, *, where="forward", dropout=0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.body = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout))
            self.head = nn.Linear(8, 3)
        self.most, self.where, self.seen = most, where, []

    def forward(self, images):
        self.seen.append(len(images))
        x = self.body(images)
        if self.where == "forward" and len(images) > self.most:
            torch.empty(2**60, dtype=torch.uint8)  # more than there are addresses for
        return self.head(Full.apply(x, self.most) if self.where == "backward" else x)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_chunks_add_up_to_the_batch(size, accumulate):
    whole, parts = make_network(), make_network()
    one = train(whole, Batches(22, size=8), epochs=2, accumulate=accumulate)
    other = train(parts, Batches(22, size=8), epochs=2, accumulate=accumulate, micro_batches=MicroBatchSize(size))
    assert_same(whole, parts, tolerance=1e-6)
    assert [result.loss for result in other] == pytest.approx([result.loss for result in one], rel=1e-6)
    assert [result.step for result in other] == [result.step for result in one]


@pytest.mark.parametrize("size", [None, 8, 100])
def test_chunks_that_hold_the_batch_change_no_bit(size):
    plain, chunked = make_network(dropout=0.5), make_network(dropout=0.5)
    one = train(plain, Batches(22, size=8), accumulate=3, epochs=2, clip_grad_norm=0.1)
    other = train(
        chunked, Batches(22, size=8), accumulate=3, epochs=2, clip_grad_norm=0.1, micro_batches=MicroBatchSize(size)
    )
    assert_same(plain, chunked)
    assert [result.loss for result in other] == [result.loss for result in one]


def test_the_loss_of_a_step_is_that_of_its_last_batch():
    shown = {None: [], 3: []}
    for size, losses in shown.items():
        after_step = lambda position, loss, losses=losses: losses.append(loss)  # noqa: E731
        train(
            make_network(), Batches(22, size=8), accumulate=2, micro_batches=MicroBatchSize(size), after_step=after_step
        )
    assert len(shown[None]) == 2
    assert shown[3] == pytest.approx(shown[None], rel=1e-6)


def test_only_the_last_chunk_of_a_step_is_shared_with_other_processes(monkeypatch):
    held, done = [], []
    accelerator = make_accelerator("cpu")

    class Held:
        def __enter__(self):
            held.append(len(done))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(accelerator, "no_sync", lambda network: Held())
    network = make_network()
    network.register_forward_hook(lambda module, inputs, output: done.append(len(output)))
    train(network, Batches(12, size=4), accelerator=accelerator, accumulate=2, micro_batches=MicroBatchSize(2))
    assert done == [2] * 6  # a step of two batches, and one of one
    assert held == [0, 1, 2, 4]


def test_the_network_may_take_several_tensors():
    class Maps(Batches):
        def epoch(self, epoch, start_batch=0):
            for images, targets in super().epoch(epoch, start_batch):
                yield (images[:, :4], images[:, 4:]), targets

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_network()

        def forward(self, parts):
            return self.inner(torch.cat(parts, 1))

    plain, joined, chunked = make_network(), Joined(), Joined()
    expected = train(plain, Batches(22))
    results = train(joined, Maps(22))
    train(chunked, Maps(22), micro_batches=MicroBatchSize(3))
    assert_same(plain, joined.inner)
    assert_same(plain, chunked.inner, tolerance=1e-6)
    assert results[0].loss == expected[0].loss


def test_boxes_stay_with_their_images():
    seen = []

    class Boxed(Batches):
        def epoch(self, epoch, start_batch=0):
            for images, _ in super().epoch(epoch, start_batch):
                numbers = torch.arange(len(images)).repeat_interleave(2)[:, None].float()
                yield (
                    images,
                    BoxTargets(torch.cat([numbers, torch.ones(len(numbers), 5)], 1), torch.arange(len(images))),
                )

    def loss(outputs, targets):
        seen.append((len(outputs), targets.rows[:, 0].tolist(), targets.indices.tolist()))
        return outputs.square().mean()

    train(make_network(), Boxed(8, size=4), loss=loss, micro_batches=MicroBatchSize(2))
    assert seen == [(2, [0, 0, 1, 1], [0, 1]), (2, [0, 0, 1, 1], [2, 3])] * 2


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_that_is_out_of_memory_goes_on_with_smaller_chunks(where, accumulate):
    told, position, network = [], Position(), Cramped(3, where=where, dropout=0.5)
    chunks = MicroBatchSize(on_halved=told.append)
    options = {"epochs": 2, "accumulate": accumulate, "seed": 4}
    results = train(network, Batches(22, size=8), micro_batches=chunks, position=position, **options)
    assert told == [4, 2]
    assert network.seen[:3] == [8, 4, 2]
    assert set(network.seen[3:]) == {2}

    small = Cramped(99, dropout=0.5)  # one that took micro-batches of two from the beginning
    expected = train(small, Batches(22, size=8), micro_batches=MicroBatchSize(2), **options)
    assert_same(network, small)  # running statistics and the number of their batches, too
    assert [result.loss for result in results] == [result.loss for result in expected]
    assert [result.step for result in results] == [result.step for result in expected]
    assert position == Position(epoch=2, step=expected[-1].step)


def test_a_step_begins_again_from_its_first_batch_without_gradients():
    class Growing(Batches):
        def epoch(self, epoch, start_batch=0):
            yield from [(self.images[:2], self.targets[:2]), (self.images[2:10], self.targets[2:10])][start_batch:]

    network, expected = Cramped(4, dropout=0.5), Cramped(99, dropout=0.5)
    result = train(network, Growing(length=2), accumulate=2, micro_batches=MicroBatchSize())
    assert network.seen == [2, 8, 2, 4, 4]
    wanted = train(expected, Growing(length=2), accumulate=2, micro_batches=MicroBatchSize(4))
    assert_same(network, expected)
    assert result[0].loss == wanted[0].loss

    class Watching(Cramped):
        def forward(self, images):
            gradients.append(self.head.weight.grad is not None)
            return super().forward(images)

    gradients = []
    train(Watching(4, where="backward"), Batches(8, size=8), micro_batches=MicroBatchSize())
    assert gradients == [False, False, True]  # the head's had been there when the body's failed


def test_chunks_of_one_image_or_none_are_told():
    network = Cramped(0)
    network.body[0] = nn.LayerNorm(6)
    with pytest.raises(
        TrainingError,
        match=r"single image \(\[enforce fail at alloc_cpu\.cpp:127\] err == 0\. DefaultCPUAllocator: can't "
        r"allocate memory: you tried to allocate 11529215\)\. Use a smaller image_size",
    ):
        train(network, Batches(22, size=8))
    with pytest.raises(
        TrainingError,
        match=r"a micro-batch of one image, where each channel has a single value\. Use a larger "
        r"micro_batch_size, or set freeze_norm_stats",
    ):
        train(Cramped(99), Batches(9, size=3), micro_batches=MicroBatchSize(2))
    with pytest.raises(TrainingError, match=r"a micro-batch of one image, where each channel has a single value\."):
        train(Cramped(1), Batches())
    with pytest.raises(
        TrainingError, match=r"a batch of one image, .* a larger batch_size \(a loader: drop_last=True\)"
    ):
        train(Cramped(99), Batches(1))


def test_without_chunks_a_run_goes_on_too():
    network = Cramped(4)
    assert len(train(network, Batches(22, size=8))) == 1
    assert network.seen == [8, 4, 4, 4, 4, 3, 3]


def test_in_several_processes_it_is_told_which_size_to_take(monkeypatch):
    accelerator = make_accelerator("cpu")
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    with pytest.raises(
        TrainingError,
        match=r"in process 0 of 2 with micro-batches of 8 images.* Start again with micro_batch_size=4 or",
    ):
        train(Cramped(2), Batches(22, size=8), accelerator=accelerator)


def test_lack_of_memory_elsewhere_is_told():
    network = make_network()

    class Hungry(torch.optim.SGD):
        def step(self, closure=None):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(
        TrainingError,
        match=r"memory in the optimizer's step \(CUDA out of memory\. Tried to allocate 2\.00 GiB\)\. Start "
        r"again with a smaller micro_batch_size",
    ):
        train(network, Batches(), optimizer=Hungry(network.parameters(), lr=0.1))
    batches = Batches()
    batches.epoch = lambda epoch, start_batch: map(fail, [0])

    def fail(_):
        raise MemoryError

    with pytest.raises(TrainingError, match="memory while loading a batch"):
        train(make_network(), batches)

    class Broken(Cramped):
        def forward(self, images):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(Broken(2), Batches())
