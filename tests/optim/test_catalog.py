import math

import pytest
import timm
import timm.optim
import torch
from packaging.version import Version
from torch import nn

import layered_recipe as recipe
from zoo.errors import InputError
from zoo.optim import catalog as optimizers
from zoo.optim.catalog import (
    check_params,
    couples_decay,
    default_params,
    default_weight_decay,
    find_optimizer,
    list_optimizers,
    rate_caveat,
    register_optimizer,
)
from zoo.optim.optimizers.mindspore import AdamWeightDecay, MindSporeAdam
from zoo.optim.optimizers.oneflow import OneFlowSGD

KRON = "ignore:It is highly recommended to have 'opt_einsum'"
LATE = {"ASGD", "adopt", "adoptc", "adoptw", "cadopt", "cadoptc", "cadoptw"}  # the first step does not use the rate
MOVE_AT_ZERO = {"Rprop", "madgrad", "madgradw"}  # steps of its own; 1e-6 is added to the rate
IGNORED_BY_OLD_TIMM = {"laprop", "claprop", "lapropc", "radamlegacy"}  # rates of groups, that is: up to 1.0.20 at least
AFTERGLOW = {"cadafactor"}  # the rate is inside the momentum buffer, which goes on when the rate is 0


@pytest.fixture
def no_registrations(monkeypatch):
    monkeypatch.setattr(optimizers, "_registered", {})


def test_the_recipe_is_the_recorded_one():
    case = recipe.read_case("recipe_check")
    assert recipe.words(1, 8).tolist() == case["words_seed_1_first_8"]
    for name, expected in case["nets"].items():
        net = recipe.make_net(name)
        assert {key: list(value.shape) for key, value in net.named_parameters()} == expected["shapes"]
        assert recipe.differences(recipe.snapshot(net), expected["init"]) == (0, pytest.approx(0, abs=1e-14))
        for step in map(int, expected["inputs"]):
            images, labels = recipe.make_batch(name, step)
            recorded = {"images": expected["inputs"][f"{step}"]}
            assert recipe.differences({"images": recipe.checksum(images)}, recorded) == (0, pytest.approx(0, abs=1e-14))
            assert labels.tolist() == expected["labels"][f"{step}"]
        recipe.prescribe_gradients(name, net, 1)
        gradients = {key: recipe.checksum(value.grad) for key, value in net.named_parameters()}
        found = recipe.differences(gradients, expected["prescribed_gradients_step_1"])
        assert found == (0, pytest.approx(0, abs=1e-14))
    assert default_params("SGD") == {"momentum": 0.9}
    assert default_params(torch.optim.SGD) == {"momentum": 0.9}
    assert default_params("RMSprop") == default_params("nesterov") == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam_w", torch.optim.AdamW),
        ("ADAMW", torch.optim.AdamW),
        ("RMS-prop", torch.optim.RMSprop),
        ("rms prop", torch.optim.RMSprop),
        ("sgd", torch.optim.SGD),
        ("NAdam", torch.optim.NAdam),
        ("momentum", torch.optim.SGD),
        ("RMSpropTF", timm.optim.RMSpropTF),
        ("rms_prop_tf", timm.optim.RMSpropTF),
        ("Lamb", timm.optim.Lamb),
        ("LION", timm.optim.Lion),
        ("mindspore_adam", MindSporeAdam),
        ("adam-weight-decay", AdamWeightDecay),
        ("OneFlow SGD", OneFlowSGD),
    ],
)
def test_names_are_found_in_any_case_and_with_any_separator(name, kind):
    assert find_optimizer(name) is kind


def test_muon_is_timms_which_takes_more_than_matrices(monkeypatch):
    if hasattr(timm.optim, "Muon"):
        assert find_optimizer("muon") is timm.optim.Muon
    monkeypatch.setattr(optimizers, "_timm_kind", lambda key: None)
    with pytest.raises(InputError, match=r"'Muon' comes from timm, and the installed version lacks it. Update timm"):
        find_optimizer("Muon")


def test_names_of_timm_that_bind_arguments():
    lambc, nesterov = find_optimizer("lamb_c"), find_optimizer("nesterovw")
    assert issubclass(lambc, timm.optim.Lamb)
    assert lambc is find_optimizer("LambC")
    parameter = nn.Parameter(torch.zeros(2))
    assert lambc([parameter]).defaults["trust_clip"] is True
    assert lambc([parameter], trust_clip=False).defaults["trust_clip"] is False
    defaults = nesterov([parameter], lr=0.1).defaults
    assert (defaults["nesterov"], defaults["momentum"]) == (True, 0.9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AdmW", r"unknown optimizer 'AdmW'\. Did you mean 'AdamW' or 'radamw'\?"),
        ("LBFGS", r"'LBFGS' cannot be used: LBFGS runs the model several times per step"),
        ("sparse_adam", r"'sparse_adam' cannot be used: SparseAdam needs sparse gradients;"),
        ("adahessian", r"needs second derivatives"),
        (
            "lookahead_adamw",
            r"Lookahead wraps another optimizer and keeps its own weights, which per-group learning rates do "
            r"not affect\. Use 'adamw' alone",
        ),
        ("bnbadam8bit", r"is bitsandbytes.optim.Adam\w*, which is in neither torch nor timm"),
        ("fused_lamb", r"is apex.optimizers.FusedLAMB"),
        ("torch.optim.Adam", r"names never import code"),
        ("os:system", r"names never import code"),
        ("../adam", r"names never import code"),
        ("", r"unknown optimizer ''"),
        (3, r"optimizer 3 is not a name"),
    ],
)
def test_names_that_cannot_be_used_are_told(name, text):
    with pytest.raises(InputError, match=text):
        find_optimizer(name)


def test_the_list_holds_every_usable_name_of_torch_and_timm_once():
    names = list_optimizers()
    keys = [name.lower() for name in names]
    assert len(set(keys)) == len(keys)
    theirs = set(timm.optim.list_optimizers(exclude_filters=["bnb*", "fused*", "adahessian"]))
    of_torch = {
        name
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
    }
    assert set(keys) == theirs | {name.lower() for name in of_torch} | {
        "mindsporeadam",
        "adamweightdecay",
        "oneflowsgd",
        "supergradientsrmsproptf",
    }
    assert "AdamW" in names
    assert "adamw" not in names


@pytest.mark.filterwarnings(KRON)
@pytest.mark.parametrize("name", list_optimizers())
def test_every_listed_optimizer_takes_two_steps_with_a_rate_per_group(name):
    if name in IGNORED_BY_OLD_TIMM and Version(timm.__version__) < Version("1.0.31"):
        pytest.skip("this release does not respect rates per group")
    kind = find_optimizer(name)
    params = default_params(kind)
    check_params(kind, params)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    parts = [list(net[0].parameters()), list(net[2].parameters())]
    optimizer = kind([{"params": part, "lr": 0.01, "weight_decay": 0.0} for part in parts], lr=0.01, **params)
    images, moved = torch.randn(4, 3, 8, 8), []
    for rates in ((0.01, 0.0), (0.0, 0.01)):
        before = [[value.detach().clone() for value in part] for part in parts]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()
        pairs = [zip(part, old, strict=True) for part, old in zip(parts, before, strict=True)]
        moved.append([max(float((value - was).detach().abs().max()) for value, was in pair) for pair in pairs])
    assert all(math.isfinite(number) for row in moved for number in row)
    (first, idle), (rest, second) = moved
    if name in LATE:
        assert idle == 0
        assert max(first, second, rest) > 1e-4
    elif name in MOVE_AT_ZERO:
        assert first > 0
        assert idle < 1e-5
    else:
        assert idle == 0
        assert first > 1e-5
        assert second > 1e-5
        assert rest == 0 or name in AFTERGLOW


def test_an_optimizer_of_ones_own_is_found_by_name(no_registrations):
    @register_optimizer()
    class SlowSGD(torch.optim.SGD):
        pass

    @register_optimizer("Half_Speed")
    class Other(torch.optim.SGD):
        pass

    assert find_optimizer("slow-sgd") is SlowSGD
    assert find_optimizer("halfspeed") is Other
    assert {"SlowSGD", "Half_Speed"} < set(list_optimizers())
    assert register_optimizer()(SlowSGD) is SlowSGD
    assert default_params("slowsgd") == {}


def test_registrations_that_are_refused(no_registrations):
    class Adam(torch.optim.SGD):
        pass

    class Rateless(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

    register_optimizer("mine")(Adam)
    with pytest.raises(InputError, match=r"the name 'MINE' is .*Adam. Choose another name"):
        register_optimizer("MINE")(torch.optim.SGD)
    with pytest.raises(InputError, match=r"the name 'Adam' is torch.optim.adam.Adam"):
        register_optimizer()(Adam)
    with pytest.raises(InputError, match=r"the name 'lion' is timm\.optim\.lion\.Lion"):
        register_optimizer("lion")(Adam)
    with pytest.raises(InputError, match="the name 'LBFGS' is nothing"):
        register_optimizer("LBFGS")(Adam)
    with pytest.raises(InputError, match="Rateless has no argument 'lr'"):
        register_optimizer()(Rateless)
    with pytest.raises(InputError, match="is not an optimizer class"):
        register_optimizer("function")(print)
    with pytest.raises(InputError, match=", or with a name"):
        register_optimizer(Adam)


@pytest.mark.parametrize(
    ("name", "decay"),
    [("SGD", 1e-4), ("momentum", 1e-4), ("AdamW", 0.01), ("Adam", 0), ("Lamb", 0.01), ("Lion", 0), ("Rprop", 0)],
)
def test_the_decay_if_nobody_says_anything(name, decay):
    assert default_weight_decay(name) == decay
    assert default_weight_decay(find_optimizer(name)) == decay


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("SGD", {"momentun": 0.9}, r"SGD has no argument 'momentun'. Did you mean 'momentum'"),
        ("lamb", {"zzz": 1}, r"Lamb has no argument 'zzz'. It has: .*betas"),
        ("SGD", {"lr": 0.9}, r"'lr' is set by the preset field 'lr'"),
        ("SGD", {"weight_decay": 0.9}, r"'weight_decay' is set by the preset field"),
        ("SGD", {"params": []}, r"'params' is set by the preset field"),
        ("AdamW", {"betas": [2, 3]}, r"AdamW rejects \{'betas': \[2, 3\]\}: Invalid beta"),
        ("SGD", {"momentum": "much"}, r"SGD rejects \{"),
        ("SGD", {"momentum": -1.0}, r"SGD rejects \{'momentum': -1\.0\}: Invalid momentum"),
        ("SGD", {"nesterov": True}, r"Nesterov momentum requires a momentum"),
        ("MindSporeAdam", {"eps": -1.0}, r"eps is -1.0; expected 0 or more"),
        ("AdamWeightDecay", {"betas": [0.9, 1.0]}, r"betas is \[0.9, 1.0\]; expected 0 or more, below 1"),
        ("OneFlowSGD", {"nesterov": True}, r"nesterov needs a momentum"),
        ("MindSporeAdam", {"use_nesterov": True, "use_amsgrad": True}, r"both true; expected at most one"),
    ],
)
def test_wrong_arguments_are_told(name, params, text):
    with pytest.raises(InputError, match=text):
        check_params(name, params)


def test_an_optimizer_that_takes_anything_is_not_checked_by_name():
    class Loose(torch.optim.SGD):
        def __init__(self, params, lr, **settings):
            super().__init__(params, lr, momentum=settings.pop("speed", 0.0), **settings)

    check_params(Loose, {"speed": 0.5})
    with pytest.raises(InputError, match=r"Loose rejects \{'sped': 0\.5\}"):
        check_params(Loose, {"sped": 0.5})


@pytest.mark.parametrize("name", ["Rprop", "asgd"])
def test_optimizers_that_do_not_follow_their_rate_say_so(name):
    assert rate_caveat(name).startswith(find_optimizer(name).__name__)
    assert rate_caveat("sgd") is None


COUPLED = "SGD Adam RMSprop Adagrad Adadelta Adamax NAdam RAdam ASGD rmsproptf nadamlegacy adopt lars madgrad nesterov"
DECOUPLED = "AdamW Lion Lamb nadamw Adafactor AdamWeightDecay radamw madgradw adabelief sgdw Rprop"


@pytest.mark.parametrize("name", [*COUPLED.split(), "MindSporeAdam", "OneFlowSGD"])
def test_decay_that_is_added_to_the_gradient(name):
    assert couples_decay(find_optimizer(name), default_params(name))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *((name, {}) for name in DECOUPLED.split()),
        ("NAdam", {"decoupled_weight_decay": True}),
        ("RAdam", {"decoupled_weight_decay": True}),
        ("rmsproptf", {"decoupled_decay": True}),
    ],
)
def test_decay_that_passes_the_gradient_by(name, params):
    assert not couples_decay(find_optimizer(name), params | ({"momentum": 0.9} if name == "sgdw" else {}))


@pytest.mark.filterwarnings(KRON)
@pytest.mark.parametrize("name", list_optimizers())
def test_arguments_of_a_wrong_shape_are_one_sentence(name):
    """Constructors unpack some without a look, and others only stumble in their first step."""
    accepted = optimizers.arguments(find_optimizer(name)) or {"betas"}
    for key in sorted(accepted & {"betas", "eps", "momentum", "alpha", "nesterov", "etas"}):
        for value in ([0.9], [], "x", [None, None], {"a": 1}):
            try:
                check_params(name, {key: value})
            except InputError as error:
                told = str(error)
            else:
                continue
            assert told.startswith(f"optimizer {find_optimizer(name).__name__} rejects ")
            assert "\n" not in told


def test_two_betas_are_needed_and_it_is_told_before_anything_is_trained():
    state = torch.get_rng_state()
    for name in ("AdamW", "adopt", "lion"):
        with pytest.raises(InputError, match=r"rejects \{'betas': \[0\.9\]\}:"):
            check_params(name, {"betas": [0.9]})
    assert torch.equal(state, torch.get_rng_state())
