import gc
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional

import zoo
import zoo.engine.compile
from coloured_folder import write_coloured
from stopping import StopAfter
from zoo.engine.compile import CompiledNetwork, StepCompiler, why_not_compiled
from zoo.errors import InputError, Interrupted
from zoo.optim.build import build_optimizer, set_rates
from zoo.optim.freeze import apply_plan

RATES = {"0": 0.1, "2": 0.03, "default": 0.01}
OPTIMIZERS = {
    "SGD without momentum": ("SGD", {"momentum": 0.0}, 3e-8),
    "SGD, foreach": ("SGD", {"foreach": True}, 3e-8),
    "AdamW": ("AdamW", {}, 3.5e-6),
}
TINY = {"lr": {"0": 0.02, "default": 0.05}, "batch_size": 4, "progress": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def _forget_what_was_compiled(monkeypatch):
    monkeypatch.setattr("zoo.training.loggers.plots.Plots.finish", lambda *_: None)  # it takes longer than these runs
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def compilers(monkeypatch):
    """The compilers of all runs of a test; they trace and count, but make no machine code, as that takes long."""
    made = []

    class Kept(StepCompiler):
        def __init__(self, *args, **options):
            super().__init__(*args, backend="aot_eager", **options)
            made.append(self)

    monkeypatch.setattr("zoo.training.setup.StepCompiler", Kept)
    return made


def make_network(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Dropout(dropout), nn.Linear(8, 3), nn.Flatten()
        )


def make_images(count=12, batch_size=4):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % 3
    images = functional.one_hot(targets, 3).float() + 0.1 * torch.randn(count, 3, generator=generator)
    data = torch.utils.data.TensorDataset(torch.cat([images, images.flip(1)], 1).view(count, 1, 1, 6), targets)
    return torch.utils.data.DataLoader(data, batch_size=batch_size)


def finetune(out, network=None, loader=None, **options):
    """Train a small network on twelve rows; return its weights."""
    network, loader = network or make_network(), loader or make_images()
    run = zoo.finetune(network, (loader, loader), out=out, **TINY | options)
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def take_steps(steps, optimizer="SGD", params=None, *, compiler=None, dropout=0.0, rate=lambda step: 1 / (step + 1)):
    """Take steps by hand, each at another rate; return weights after twelve and compilations after each."""
    network = make_network(dropout)
    plan = zoo.plan(network, RATES, weight_decay=0.01, decay_norm_and_bias=True)
    apply_plan(network, plan)
    made = build_optimizer(network, plan, optimizer=optimizer, params=params, tensor_rates=compiler is not None)
    train, loss, counts, weights = network, functional.cross_entropy, [], {}
    if compiler is not None:
        compiler.compile_optimizer(made, plan)
        train, loss = compiler.compile_network(network), compiler.compile_loss(loss)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        torch.manual_seed(step)
        inputs, targets = torch.randn(5, 6, generator=generator), torch.randint(3, (5,), generator=generator)
        loss(train(inputs), targets, label_smoothing=0.1).backward()
        set_rates(made, {group.name: group.lr * rate(step) for group in plan.groups})
        made.step()
        made.zero_grad()
        counts.append(None if compiler is None else {**compiler.compilations, "graphs": graphs()})
        if step < 12:
            weights = {name: value.clone() for name, value in network.state_dict().items()}
    return weights, counts


def graphs():
    """How many graphs torch itself has counted."""
    return counters["stats"]["unique_graphs"]


def assert_close(one, other, tolerance):
    assert list(one) == list(other)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) <= tolerance


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_changes_of_rate_compile_nothing_and_change_nothing(name):
    optimizer, params, tolerance = OPTIMIZERS[name]
    said = []
    compiler = StepCompiler(said.append, backend="aot_eager")
    found, counts = take_steps(52, optimizer, params, compiler=compiler)
    assert counts[1] == counts[-1] == {"optimizer": 1, "forward": 1, "loss": 1, "graphs": counts[1]["graphs"]}
    assert counts[0]["optimizer"] == 0  # the first step creates what the optimizer keeps
    assert compiler.problem is None
    assert said == ["compiling the training step: the first steps take longer"]
    expected, _ = take_steps(12, optimizer, params)
    assert_close(found, expected, tolerance)


def test_numbers_as_rates_would_be_compiled_anew():
    network = make_network()
    plan = zoo.plan(network, RATES)
    made = build_optimizer(network, plan, optimizer="SGD")
    step = torch.compile(made.step, backend="eager", dynamic=False)
    for number in range(5):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        set_rates(made, {group.name: group.lr / (number + 1) for group in plan.groups})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The .grad attribute")
            step()
    assert graphs() >= 5  # so it would be seen above


def test_compiled_code_gives_the_weights_of_the_plain_run(tmp_path):
    begin = make_network().state_dict()
    for optimizer, tolerance, lr in (("SGD", 3e-8, TINY["lr"]), ("AdamW", 3.5e-6, {"0": 0.001, "default": 0.002})):
        options = {"optimizer": optimizer, "lr": lr, "epochs": 4, "label_smoothing": 0.1, "keep": "last"}
        out = tmp_path / optimizer
        plain = finetune(out / "plain", make_network(dropout=0.3), **options)
        found = finetune(out / "compiled", make_network(dropout=0.3), compile=True, **options)
        assert_close(found, plain, tolerance)
        assert max(float((plain[name] - value).abs().max()) for name, value in begin.items()) > 1000 * tolerance
    assert graphs() >= 6


def test_unfreezing_compiles_once_per_point(tmp_path, compilers):
    seen = []

    class Watch(zoo.Callback):
        def on_step_end(self, run):
            seen.append(dict(compilers[0].compilations))

    options = {"lr": {"4": 0.05, "2": 0.01, "0": 0.005, "default": 0}, "unfreeze": {"1": "2.", "3": "0."}, "epochs": 5}
    options |= {"optimizer": "AdamW"}
    found = finetune(tmp_path / "compiled", compile=True, callbacks=Watch(), **options)
    ends = [seen[3 * epoch + 2] for epoch in range(5)]
    assert [end["forward"] for end in ends] == [end["optimizer"] for end in ends] == [1, 2, 2, 3, 3]
    assert [end["loss"] for end in ends] == [1] * 5
    assert seen[3]["forward"] == 2  # at once
    assert seen[4]["optimizer"] == 2
    assert compilers[0].problem is None
    assert_close(found, finetune(tmp_path / "plain", **options), 3.5e-6)


def test_a_smaller_last_batch_is_one_graph_more_for_the_whole_run(tmp_path, compilers):
    options = {"loader": make_images(10), "epochs": 6}
    found = finetune(tmp_path / "compiled", compile=True, **options)
    assert compilers[0].compilations == {"optimizer": 1, "forward": 2, "loss": 2}
    assert compilers[0].problem is None
    assert_close(found, finetune(tmp_path / "plain", **options), 1e-7)


def test_more_compilations_than_torch_allows_are_made(tmp_path, compilers):
    options = {"lr": {"4": 0.05, "2": 0.01, "0": 0.005, "default": 0}, "unfreeze": {"1": "2.", "2": "0."}, "epochs": 3}
    with torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=2):
        finetune(tmp_path, loader=make_images(10), compile=True, **options)
    assert compilers[0].problem is None
    assert compilers[0].compilations == {"optimizer": 3, "forward": 6, "loss": 2}


def test_many_runs_in_one_process_are_all_compiled():
    with torch._dynamo.config.patch(recompile_limit=2):  # they share torch's count of what it has compiled
        for _ in range(3):
            compiler = StepCompiler(print, backend="eager")
            take_steps(3, compiler=compiler)
            assert compiler.compilations == {"optimizer": 1, "forward": 1, "loss": 1}
            assert compiler.problem is None


def test_names_are_the_plain_ones_everywhere(tmp_path, compilers):
    states = []

    class Keep(zoo.Callback):
        def on_epoch_end(self, run):
            states.append(run.model.state_dict())

    options = {"lr": {"4": 0.05, "default": 0}, "ema_decay": 0.9, "keep": "best", "epochs": 2}
    network = make_network()
    run = zoo.finetune(
        network, (make_images(), make_images()), out=tmp_path, compile=True, callbacks=Keep(), **TINY | options
    )
    names = list(make_network().state_dict())
    assert [list(state) for state in states] == [names] * 2
    assert run.model is network
    assert set(run.proof["digests"]) == {name for name in names if not name.startswith("4")}
    assert list(zoo.load(tmp_path, model=make_network()).state_dict()) == names


def test_a_run_that_was_stopped_goes_on_compiled(tmp_path, compilers):
    options = {"optimizer": "AdamW", "epochs": 3, "compile": True}
    whole = finetune(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        finetune(tmp_path / "stopped", callbacks=StopAfter(4), **options)
    loader = make_images()
    run = zoo.resume(tmp_path / "stopped", (loader, loader), model=make_network(), progress=False)
    assert_close(run.model.state_dict(), whole, 0.0)
    assert compilers[-1].compilations == {"optimizer": 1, "forward": 1, "loss": 1}


@pytest.mark.parametrize(("clip", "clip_of_one"), [(1.0, {}), (None, {"clip_grad_norm": 0.1})])
def test_gradients_can_be_clipped_centralized_and_accumulated_and_rates_set(tmp_path, compilers, clip, clip_of_one):
    class Halve(zoo.Callback):
        def on_epoch_end(self, run):
            run.set_lr("0", run.rates["0"] / 2)

    options = {"epochs": 4, "accumulate": 2, "clip_grad_norm": clip, "gradient_centralization": True, "ema_decay": 0.5}
    options |= {"schedule": "constant", "warmup_steps": 0, "callbacks": Halve(), "loader": make_images(16)}
    options |= {"lr": {"0": 0.05, "2": {"lr": 0.02} | clip_of_one, "default": 0.05}}
    found = finetune(tmp_path / "compiled", compile=True, **options)
    assert compilers[0].problem is None
    assert compilers[0].compilations == {"optimizer": 2, "forward": 1, "loss": 1}  # 0 and 4 were one group till then
    assert_close(found, finetune(tmp_path / "plain", **options), 1e-7)


def test_kept_features_and_mixed_precision(tmp_path, compilers):
    images = write_coloured(tmp_path / "images", train=4, val=2)
    options = {"lr": 0.05, "epochs": 2, "image_size": 32, "num_workers": 0} | {**TINY, "lr": 0.05}
    results = {}
    for precision in ("no", "bf16"):
        for compiled in (False, True):
            out = tmp_path / f"{precision}-{compiled}"
            model = zoo.get("timm/test_convnext", num_classes=3)
            run = zoo.finetune(model, images, out=out, precision=precision, compile=compiled, **options)
            results[precision, compiled] = run.model.state_dict()
            assert "cache: disk" in (out / "preset.yaml").read_text()
        assert compilers[-1].compilations == {"optimizer": 1, "forward": 1, "loss": 1}
    assert_close(results["no", True], results["no", False], 1e-7)
    assert_close(results["bf16", True], results["bf16", False], 1e-3)


def test_the_network_itself_stays_uncompiled_for_evaluation():
    network = make_network(dropout=0.5)
    compiler = StepCompiler(print, backend="aot_eager")
    train = compiler.compile_network(network)
    assert compiler.compile_network(network) is train
    train(torch.ones(2, 6))
    network.eval()
    with torch.inference_mode():
        for rows in (1, 3, 7):
            network(torch.ones(rows, 6))
    train.train()
    assert network.training
    train(torch.ones(2, 6))
    assert compiler.compilations == {"forward": 1}
    assert graphs() == 1
    assert [id(value) for value in train.parameters()] == [id(value) for value in network.parameters()]


def assert_falls_back(tmp_path, capsys, text):
    """Check that a run says why it goes on uncompiled, once, and that it is the plain run then, bit for bit."""
    options = {"epochs": 3, "optimizer": "AdamW"}
    plain = finetune(tmp_path / "plain", make_network(dropout=0.3), **options)
    capsys.readouterr()
    found = finetune(tmp_path / "compiled", make_network(dropout=0.3), compile=True, progress=True, **options)
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if "without compilation" in line or "step is not" in line
    )
    assert line.startswith("continuing without compilation, with the same result: ")
    assert text in line
    assert_close(found, plain, 0.0)


def test_without_a_cpp_compiler_a_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "empty"))
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "fx_graph_cache": False}):
        assert_falls_back(tmp_path, capsys, "No working C++ compiler found")


def test_where_torch_compiles_nothing_a_run_goes_on(tmp_path, capsys, monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", refuse)
    assert_falls_back(tmp_path, capsys, "torch.compile is not supported on Python 3.99+")


def test_a_backend_that_fails_at_the_gradients_is_known_before_they_are_computed(tmp_path, capsys, monkeypatch):
    from torch._dynamo.backends.common import aot_autograd

    def fail(graph, inputs):
        raise NotImplementedError("no gradient of this\nand more")

    backend = aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=fail)
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: lambda graph, inputs, **_: backend(graph, inputs))
    assert_falls_back(tmp_path, capsys, "NotImplementedError: no gradient of this (torch.compile needs a C++ compiler")


def test_an_error_inside_of_torch_is_survived(tmp_path, capsys, monkeypatch):
    compiled = torch.compile

    def break_networks(function, **options):
        def fail(*args, **options):
            raise torch._dynamo.exc.InternalTorchDynamoError("lost in a frame")

        return fail if isinstance(function, nn.Module) else compiled(function, **options)

    monkeypatch.setattr(torch, "compile", break_networks)
    assert_falls_back(tmp_path, capsys, "InternalTorchDynamoError: lost in a frame")


def test_batches_of_ever_new_sizes_end_the_compiling_with_a_word():
    said = []
    compiler = StepCompiler(said.append, backend="eager")
    network = make_network()
    train = compiler.compile_network(network)
    for rows in range(1, 14):
        inputs = torch.ones(rows, 6)
        assert torch.equal(train(inputs), network(inputs))
    assert compiler.compilations == {"forward": 9}
    (text,) = said[1:]
    assert text.startswith(
        "continuing without compilation, with the same result: forward was compiled more than 8 times"
    )


def test_what_torch_will_not_compile_is_told():
    said = []
    train = StepCompiler(said.append, backend="eager").compile_network(nn.Identity())
    with torch._dynamo.config.patch(disable=True):
        assert torch.equal(train(torch.ones(2)), torch.ones(2))
    assert said[1:] == [
        "continuing without compilation, with the same result: torch found nothing to compile in forward"
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"optimizer": "Adafactor"}, "torch found nothing to compile in it"),
        ({"optimizer": "cadafactor"}, "it would be recompiled at every step"),
        (
            {"optimizer": "Adam", "optimizer_params": {"foreach": True}},
            "Adam does not accept a tensor as learning rate: lr as a",
        ),
        (
            {"lr": {"default": {"lr": 0.05, "weight_decay": 0.01, "weight_decay_schedule": "cosine"}}},
            "its weight decay follows a schedule",
        ),
    ],
    ids=["nothing to compile", "anew for every step", "no tensor", "scheduled decay"],
)
def test_an_optimizer_that_cannot_be_compiled_is_left_as_it_is(tmp_path, compilers, capsys, options, reason):
    options = {"epochs": 2, **options}
    plain = finetune(tmp_path / "plain", **options)
    capsys.readouterr()
    found = finetune(tmp_path / "compiled", compile=True, progress=True, **options)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "step is not" in line)
    assert f"step is not: {reason}" in line
    assert compilers[0].compilations == {"optimizer": 0, "forward": 1, "loss": 1}
    assert_close(found, plain, 1e-7)


def test_an_optimizer_of_the_users_own_keeps_its_numbers(tmp_path, compilers, capsys):
    loader, results = make_images(), []
    for compiled in (False, True):
        network = make_network()
        own = torch.optim.SGD(network.parameters(), lr=0.05)
        options = {name: value for name, value in TINY.items() if name != "lr"} | {"progress": True, "epochs": 2}
        zoo.finetune(
            network, (loader, loader), out=tmp_path / str(compiled), optimizer=own, compile=compiled, **options
        )
        results.append(network.state_dict())
    said = capsys.readouterr().out
    assert "forward and backward are compiled, the SGD step is not: its learning rates are plain numbers" in said
    assert_close(*results, 1e-7)


def test_an_optimizer_that_counts_its_steps_in_numbers_is_compiled_twice_and_then_no_more():
    compiler = StepCompiler(print, backend="eager")
    _, counts = take_steps(10, "lamb", compiler=compiler)
    assert counts[-1]["optimizer"] == counts[3]["optimizer"] <= 3
    assert compiler.problem is None
    network = make_network()
    network.no_sync = lambda: "held back"
    assert CompiledNetwork(network, None).no_sync() == "held back"
    assert not hasattr(CompiledNetwork(make_network(), None), "no_sync")


def test_an_optimizer_that_would_compute_something_else_is_found_out():
    class Hasty(torch.optim.SGD):
        def step(self, closure=None):
            if torch.compiler.is_compiling():
                for group in self.param_groups:
                    group["lr"].mul_(2)
            return super().step(closure)

    weight = nn.Parameter(torch.ones(3))
    assert why_not_compiled(Hasty([weight], lr=torch.tensor(0.1))) == "its compiled step gives different weights"
    assert why_not_compiled(torch.optim.SGD([weight], lr=torch.tensor(0.1), momentum=0.9)) is None
    assert torch.equal(weight, torch.ones(3))


def test_errors_of_the_network_keep_their_text(tmp_path):
    class Refuses(nn.Linear):
        def forward(self, inputs):
            if inputs.shape[-1] != 5:
                raise InputError(f"expected 5 columns, not {inputs.shape[-1]}")
            return super().forward(inputs)

    with pytest.raises(InputError, match=r"^expected 5 columns, not 6$"):
        finetune(tmp_path, Refuses(6, 3), lr={"default": 0.1}, compile=True)


def test_nothing_of_a_run_is_kept_when_it_is_over(tmp_path, compilers):
    network = make_network()
    left = weakref.ref(network)
    finetune(tmp_path, network, epochs=1, compile=True)
    compilers.clear()
    del network
    gc.collect()
    assert left() is None
