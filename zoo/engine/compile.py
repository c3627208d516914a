"""The training step compiled: forward, loss and their gradients, and the optimizer's step where torch can.

Torch compiles a function anew when something changes that it took for constant. Here rates are tensors, shapes are
fixed, and evaluation runs the plain network, so that only an unfreezing, or a last batch that is smaller, costs a new
compilation. Compilations are counted, and whatever cannot be compiled runs as it would without, and is told.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.optim import arguments, tensor_rate_problem
from zoo.rates import Plan

BACKEND = "inductor"
PER_STAGE = 8  # compilations of one part between two unfreezings; with more, each step seems to need its own
NO_LIMIT = 1_000_000  # torch's own limits make it go on uncompiled without an error; they span all runs of a process
NEEDS = "(torch.compile needs a C++ compiler on the CPU, and Triton on a GPU)"


class StepCompiler:
    """Compiles the parts of the training step of one run.

    Args:
        log: Told once if the run goes on uncompiled, and if the optimizer alone does.
        stages: How many sets of parameters learn one after the other: unfreezings, and one.
        backend: What turns graphs into code, by its name in torch.

    Attributes:
        compilations: How often each part was compiled: `forward`, `loss`, `optimizer`.
        problem: Why the run goes on uncompiled; None while it is compiled.
    """

    def __init__(self, log: Callable[[str], None], *, stages: int = 1, backend: str | None = None) -> None:
        self.log, self.most, self.backend = log, PER_STAGE * stages, backend or BACKEND
        self.compilations: dict[str, int] = {}
        self.problem: str | None = None
        self._optimizer: Optimizer | None = None
        self._network: CompiledNetwork | None = None

    def compile_network(self, network: nn.Module) -> nn.Module:
        """Return a module that trains a network, compiled, and leaves the network itself as it is."""
        if not self.compilations.get("forward") and self.problem is None:
            self.log("compiling the training step: the first steps take longer")
        if self._network is None or self._network.network is not network:
            self._network = CompiledNetwork(network, self._compile("forward", network, dynamic=False))
        return self._network

    def renew_network(self) -> None:
        """Compile the network anew at the next call: torch 2.11 does not see that other parameters learn now."""
        self._network = None

    def compile_loss(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a loss, compiled."""
        return self._compile("loss", loss, dynamic=False)

    def compile_optimizer(self, optimizer: Optimizer, plan: Plan) -> None:
        """Compile the step of an optimizer in place, or say why it stays as it is and make its rates numbers.

        Args:
            optimizer: What `build_optimizer` made with `tensor_rates`, not yet wrapped.
            plan: Of the run.
        """
        self._optimizer = optimizer
        part = self._compile("optimizer", optimizer.step)
        if self.problem is not None:
            return
        reason = "its weight decay follows a schedule" if _schedules_decay(plan) else why_not_compiled(optimizer)
        if reason is not None:
            self.log(f"forward and backward are compiled, the {type(optimizer).__name__} step is not: {reason}")
            _take_numbers(optimizer)
            return
        optimizer.step = OptimizerStep(optimizer, part)  # type: ignore[method-assign, assignment]

    def give_up(self, problem: str) -> None:
        """Go on uncompiled from the next call on."""
        if self.problem is None:
            self.problem = problem
            self.log(f"continuing without compilation, with the same result: {problem}")
            if self._optimizer is not None:
                _take_numbers(self._optimizer)

    def _compile(self, name: str, function: Callable[..., Any], *, dynamic: bool | None = None) -> "Part":
        self.compilations.setdefault(name, 0)
        graphs = Graphs(self.backend)
        try:
            compiled = torch.compile(function, backend=graphs, dynamic=dynamic)
        except RuntimeError as error:  # this version of Python, for example
            self.give_up(f"{_in_short(error)} {NEEDS}")
            compiled = function
        return Part(name, function, compiled, graphs, self)


class Graphs:
    """Hands graphs on to a backend of torch and counts them; one that cannot be compiled is run as it is.

    Torch keeps it as long as the process lives, so it holds nothing of the run.

    Args:
        backend: Its name.

    Attributes:
        count: Graphs so far.
        failure: Why one of them could not be compiled.
    """

    def __init__(self, backend: str) -> None:
        self.backend, self.count = backend, 0
        self.failure: str | None = None

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        """Return the graph, compiled."""
        import torch._functorch.config as settings

        self.count += 1
        compiler: Callable[..., Any] = torch._dynamo.lookup_backend(self.backend)
        if self.backend == "inductor":  # dropout draws the numbers that it draws uncompiled
            compiler = partial(compiler, config_patches={"fallback_random": True})
        try:
            with settings.patch(force_non_lazy_backward_lowering=True):  # so that it fails here, or not at all
                return cast(Callable[..., Any], compiler(graph, inputs))
        except torch._dynamo.exc.RestartAnalysis:  # torch tries again
            raise
        except Exception as error:
            self.failure = f"{_in_short(error)} {NEEDS}"
            return graph.forward


class Part:
    """One function, compiled as long as that works.

    Args:
        name: As it is counted.
        plain: The function.
        compiled: The same, compiled.
        graphs: What the compiled one is compiled with.
        compiler: Keeps count, and knows whether the run goes on uncompiled.
    """

    def __init__(
        self, name: str, plain: Callable[..., Any], compiled: Callable[..., Any], graphs: Graphs, compiler: StepCompiler
    ) -> None:
        self.name, self.plain, self.compiled, self.graphs, self.compiler = name, plain, compiled, graphs, compiler

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function, compiled or not."""
        if self.compiler.problem is not None:
            return self.plain(*args, **options)
        before = self.graphs.count
        try:
            result = _call_quietly(self.compiled, *args, **options)
        except torch._dynamo.exc.TorchDynamoException as error:  # raised before the function runs
            self.compiler.give_up(_in_short(error))
            return self.plain(*args, **options)
        if self.graphs.count != before or before == 0:
            self._look_at_graphs(self.graphs.count - before)
        return result

    def _look_at_graphs(self, new: int) -> None:
        """Count a compilation, and give up if it failed, did nothing or was one too many."""
        compiler = self.compiler
        compiler.compilations[self.name] += new > 0
        if self.graphs.failure is not None:
            compiler.give_up(self.graphs.failure)
        elif new == 0:
            compiler.give_up(f"torch found nothing to compile in {self.name}")
        elif compiler.compilations[self.name] > compiler.most:
            compiler.give_up(f"{self.name} was compiled more than {compiler.most} times; do batches differ in size?")


class CompiledNetwork(nn.Module):
    """A network whose forward pass is compiled here and nowhere else: its names, state and other uses stay.

    Args:
        network: The network, wrapped for several processes or not.
        part: Its call.
    """

    def __init__(self, network: nn.Module, part: Part) -> None:
        super().__init__()
        self.network = network
        self.part = part
        if hasattr(network, "no_sync"):
            self.no_sync = network.no_sync

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network returns."""
        outputs: Tensor = self.part(images)
        return outputs


class OptimizerStep:
    """An optimizer's step, compiled, but for the first with each new set of gradients.

    That step creates momenta and the like, so the one after it would have to be compiled anew.

    Args:
        optimizer: Whose gradients are watched.
        part: Its step.
    """

    def __init__(self, optimizer: Optimizer, part: Part) -> None:
        self.optimizer, self.part = optimizer, part
        self.most_gradients: int | None = None

    def __call__(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; return what the closure returns."""
        if self.most_gradients is None:
            self.most_gradients = len(self.optimizer.state)  # of a resumed run, which goes on as it would have
        gradients = sum(p.grad is not None for group in self.optimizer.param_groups for p in group["params"])
        function = self.part if gradients <= self.most_gradients else self.part.plain
        self.most_gradients = max(self.most_gradients, gradients)
        result: float | None = function() if closure is None else function(closure)
        return result


def why_not_compiled(optimizer: Optimizer) -> str | None:
    """Return why an optimizer's step had better not be compiled, or None if it can be: that is tried.

    A small copy takes six steps at six rates, compiled and not: the weights must agree, and the last two steps must not
    need a new compilation. The fourth may, where steps are counted by a number: torch then sees that it changes.

    Args:
        optimizer: Its class, settings and first group are copied.
    """
    kind, group = type(optimizer), optimizer.param_groups[0]
    accepted = arguments(kind)
    settings = {key: value for key, value in optimizer.defaults.items() if accepted is None or key in accepted}
    if not all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
        device = group["params"][0].device
        return tensor_rate_problem(kind, settings, device) or "its learning rates are plain numbers, not tensors"
    graphs = Graphs("eager")
    try:
        expected, _ = _take_steps(_small_copy(optimizer, settings), None)
        found, counts = _take_steps(_small_copy(optimizer, settings), graphs)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        return _in_short(error)
    if counts[-1] == 0:
        return "torch found nothing to compile in it"
    if counts[-1] > counts[-3]:
        return "it would be recompiled at every step"
    same = all(torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(found, expected, strict=True))
    return None if same else "its compiled step gives different weights"


def _small_copy(optimizer: Optimizer, settings: dict[str, Any]) -> Optimizer:
    """Return an optimizer of one small matrix and one vector, with the settings of the first group of another."""
    first = optimizer.param_groups[0]
    device = first["params"][0].device
    weights = [torch.ones(size, device=device, requires_grad=True) for size in ((4, 4), (4,))]
    group = {key: value for key, value in first.items() if key not in ("params", "members")}
    kind: Any = type(optimizer)
    made: Optimizer = kind([{**group, "params": weights, "lr": first["lr"].clone()}], lr=0.1, **settings)
    return made


def _take_steps(optimizer: Optimizer, graphs: Graphs | None) -> tuple[list[Tensor], list[int]]:
    """Take six steps; return the weights then, and the number of graphs after each step."""
    group, counts = optimizer.param_groups[0], []
    compiled = optimizer.step if graphs is None else torch.compile(optimizer.step, backend=graphs)
    for number in range(1, 7):
        group["lr"].fill_(0.01 * number)
        for weight in group["params"]:
            weight.grad = torch.linspace(-1.0, number, weight.numel(), device=weight.device).view_as(weight)
        _call_quietly(optimizer.step if number == 1 else compiled)
        counts.append(0 if graphs is None else graphs.count)
    return [weight.detach() for weight in group["params"]], counts


def _call_quietly(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a compiled function without torch's limits, and without the warning that it gives itself."""
    limits = torch._dynamo.config.patch(recompile_limit=NO_LIMIT, accumulated_recompile_limit=NO_LIMIT)
    with limits, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf", UserWarning)
        return function(*args, **options)


def _schedules_decay(plan: Plan) -> bool:
    return any(group.weight_decay_schedule is not None for group in plan.trained)


def _take_numbers(optimizer: Optimizer) -> None:
    """Make rates numbers again, as without compilation; they are written before the next step."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])


def _in_short(error: BaseException) -> str:
    """Return kind and first line of what went wrong first."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
