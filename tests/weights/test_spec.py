import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from hub_server import HubServer
from zoo._model import ModelInterface
from zoo.errors import InputError, WeightsError
from zoo.files.safetensors import save_tensors, sha256_file
from zoo.weights.find import find_weights
from zoo.weights.licence import is_commercial
from zoo.weights.load import load_into
from zoo.weights.spec import ConvertedCheckpoint, FileWeights, LoadReport, ResolvedWeights, Weights


class Tiny(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)


def state(num_classes: int = 3) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tensors = Tiny(num_classes).state_dict()
    return tensors | {"norm.num_batches_tracked": torch.tensor(5)}


FILE = save(state())
DAMAGED = FILE[:-1] + bytes([FILE[-1] ^ 1])
SHA256 = hashlib.sha256(FILE).hexdigest()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))


@pytest.fixture
def known(hub: HubServer) -> Weights:
    """Weights that are on the Hub, with everything known of them."""
    commit = hub.add("org/tiny", {"model.safetensors": FILE, "config.json": b'{"num_classes": 3, "license": "MIT"}'})
    return Weights(repo="org/tiny", revision=commit, sha256=SHA256, licence="apache-2.0")


def find(pretrained: bool | str | Path, known: Weights | None = None, **options: Any) -> ResolvedWeights:
    return find_weights(pretrained, known, name="tiny", **options)


def local(folder: Path, tensors: dict[str, Tensor]) -> ResolvedWeights:
    path = folder / "model.safetensors"
    save_tensors(tensors, path, {})
    return find(path)


def test_pinned_means_commit_and_digest() -> None:
    weights = Weights(repo="org/tiny", revision="0" * 40, sha256="0" * 64, licence="mit")
    assert weights.pinned
    assert not replace(weights, revision=None).pinned
    assert not replace(weights, sha256=None).pinned
    assert vars(weights)["filename"] == "model.safetensors"
    with pytest.raises(InputError, match=r"weights b\.pth: sha256 is 'x'; expected 64 hexadecimal digits"):
        FileWeights(filename="b.pth", sha256="x", locations=(), licence="mit", repo_setting="a")
    with pytest.raises(WeightsError, match=r"no pretrained weights are published for tiny\. Pass a path"):
        find(True, None)
    weights = Weights(repo="org/tiny", revision=None, sha256=None, licence="mit", source="ImageNet-1k, recipe A1")
    assert "released for non-commercial research" in weights.caveat
    assert weights.describe()["caveat"] == weights.caveat
    assert replace(weights, source="COCO 2017").caveat == ""


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("repo", "tiny", "expected 'org/name'"),
        ("repo", "org/tiny@main", "expected 'org/name'"),
        ("repo", "../tiny", "expected 'org/name'"),
        ("revision", "main", "expected 40 hexadecimal digits"),
        ("revision", "e7de91e", "expected 40 hexadecimal digits"),
        ("sha256", "0" * 40, "expected 64 hexadecimal digits"),
        ("sha256", "G" * 64, "expected 64 hexadecimal digits"),
        ("filename", "pytorch_model.bin", r"expected a \.safetensors file"),
        ("filename", "../model.safetensors", r"expected a \.safetensors file"),
    ],
)
def test_weights_are_checked_where_they_are_written_down(field: str, value: str, expected: str) -> None:
    facts = {"repo": "org/tiny", "revision": None, "sha256": None, "licence": "mit"} | {field: value}
    with pytest.raises(InputError, match=expected):
        Weights(**facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("licence", ["apache-2.0", "Apache-2.0", " mit ", "BSD-3-Clause", "cc0-1.0", "cc-by-4.0"])
def test_commercial_licences(licence: str) -> None:
    assert is_commercial(licence)


@pytest.mark.parametrize(
    "licence", [None, "", "unknown", "other", "cc-by-nc-4.0", "agpl-3.0", "apache", "mit or worse"]
)
def test_licences_not_known_to_be_commercial(licence: str | None) -> None:
    assert not is_commercial(licence)


def test_a_cached_file_is_hashed_once(hub: HubServer, known: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    path = find(True, known).path
    os.utime(path, (1e9, 1e9))
    hashed: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (hashed.append(name), real(file, name))[1])
    assert [find(True, known).sha256 for _ in range(3)] == [SHA256] * 3
    assert len(hashed) == 1
    path.write_bytes(DAMAGED)
    assert find(True, known).sha256 == SHA256
    assert hub.count("GET") == 2, "the damage was seen and healed"


def test_a_file_of_transformers_is_read_by_the_model_s_own_reader(hub: HubServer, tmp_path: Path) -> None:
    theirs = {"model_type": "detr"}
    commit = hub.add("org/tiny", {"model.safetensors": FILE, "config.json": json.dumps(theirs).encode()})
    known = Weights(repo="org/tiny", revision=commit, sha256=SHA256, licence="mit")
    renamed = {f"model.{name}": tensor for name, tensor in state().items()}

    def read(path: Path) -> ConvertedCheckpoint:
        assert json.loads(path.with_name("config.json").read_text()) == theirs
        return ConvertedCheckpoint(renamed, {"num_classes": 3}, ("renamed",))

    (tmp_path / "model.safetensors").write_bytes(FILE)
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    for source in (True, "org/tiny", tmp_path):
        found = find(source, known, read_foreign=read)
        assert (found.config, found.notes, set(found.shapes())) == ({"num_classes": 3}, ("renamed",), set(renamed))
    (tmp_path / "config.json").write_text(json.dumps(theirs | {"zoo": "0.1"}))
    assert find(tmp_path, known, read_foreign=read).foreign is None, "it was saved by this package"
    assert find("org/tiny").foreign is None, "the model has no reader"


def test_a_real_download(hub: HubServer, known: Weights) -> None:
    found = find(True, known)
    assert found.path.read_bytes() == FILE
    assert replace(found, path=Path()) == ResolvedWeights(
        path=Path(),
        config=None,
        origin=f"{hub.endpoint}/org/tiny",
        revision=known.revision,
        sha256=SHA256,
        licence="apache-2.0",
        pinned=True,
    )
    assert [request.method for request in hub.requests] == ["HEAD", "GET"], "what is known needs no config.json"


def test_a_second_load_needs_no_server(hub: HubServer, known: Weights) -> None:
    first = find(True, known)
    hub.requests.clear()
    hub.fail(".*", reset=True, times=None)
    assert find(True, known) == first
    assert not hub.requests


def test_unpinned_weights_are_recorded_with_their_commit(hub: HubServer, known: Weights) -> None:
    for weights in (replace(known, revision=None), replace(known, sha256=None)):
        found = find(True, weights)
        assert (found.revision, found.sha256, found.pinned) == (known.revision, SHA256, False)
    hub.fail(".*", status=503, times=None)
    assert find(True, replace(known, revision=None)).revision == known.revision, "from the cache"


def test_another_file_name_and_cache(hub: HubServer, known: Weights, tmp_path: Path) -> None:
    commit = hub.add("org/tiny", {"sub/mine.safetensors": FILE})
    found = find(True, replace(known, revision=commit, filename="sub/mine.safetensors"), cache_dir=str(tmp_path))
    assert found.path.is_relative_to(tmp_path)
    assert found.revision == commit


def test_any_repository(hub: HubServer, known: Weights) -> None:
    found = find("org/tiny")
    assert (found.revision, found.sha256, found.licence, found.pinned) == (known.revision, SHA256, "mit", False)
    assert found.config == {"num_classes": 3, "license": "MIT"}
    assert found.path.read_bytes() == FILE


def test_a_repository_at_a_commit_needs_no_second_request(hub: HubServer, known: Weights) -> None:
    bare = hub.add("org/bare", {"model.safetensors": FILE})
    for source, config in {f"org/tiny@{known.revision}": True, f"org/bare@{bare}": False}.items():
        first = find(source)
        assert (first.config is not None) == config
        hub.requests.clear()
        assert find(source) == first
        assert not hub.requests


def test_a_repository_at_a_branch_with_a_slash(hub: HubServer) -> None:
    commit = hub.add("org/tiny", {"model.safetensors": FILE}, "refs/pr/1")
    assert find("org/tiny@refs/pr/1").revision == commit


def test_config_and_weights_are_of_one_commit(hub: HubServer, known: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/tiny", {"model.safetensors": FILE, "config.json": b'{"old": 1}'}, str(known.revision))
    hub.add("org/tiny", {"model.safetensors": FILE, "config.json": b'{"new": 1}'})
    assert find(f"org/tiny@{known.revision}").config == {"old": 1}
    assert find("org/tiny").config == {"new": 1}


def test_content_is_held_against_the_announced_digest(hub: HubServer, known: Weights, tmp_path: Path) -> None:
    hub.fail("GET .*/model.safetensors", corrupt=True)
    assert find("org/tiny").sha256 == SHA256
    hub.fail("HEAD .*/model.safetensors", headers={"X-Linked-ETag": f'"{"0" * 64}"'}, times=None)
    with pytest.raises(WeightsError, match=f"SHA-256 is {SHA256}, expected {'0' * 64}"):
        find("org/tiny", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b'{"x": "' + b"a" * 1_000_000 + b'"}', "longer than 1,000,000 bytes"),
        (b"[1, 2]", "expected a JSON object, got list"),
    ],
)
def test_a_hostile_config(hub: HubServer, tmp_path: Path, config: bytes, reason: str) -> None:
    hub.add("org/tiny", {"model.safetensors": FILE, "config.json": config})
    with pytest.raises(WeightsError, match=rf"^config\.json of org/tiny cannot be used: .*{reason}.* Repair or remove"):
        find("org/tiny")
    (tmp_path / "model.safetensors").write_bytes(FILE)
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(WeightsError, match=rf"^{tmp_path}/config\.json cannot be used: .*{reason}"):
        find(tmp_path)


def test_a_missing_repository_may_be_a_missing_folder(hub: HubServer) -> None:
    with pytest.raises(WeightsError, match=r"There is also no local file or folder 'runs/best'\."):
        find("runs/best")


def test_a_local_file(tmp_path: Path, hub: HubServer) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(FILE)
    assert find(path) == find(str(path)) == ResolvedWeights(path, None, str(path), None, SHA256, None, pinned=False)
    assert not hub.requests


def test_a_local_folder_with_a_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(FILE)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"license": "Apache-2.0"}}))
    found = find(tmp_path)
    assert found.path == tmp_path / "model.safetensors"
    assert found.config == {"pretrained_cfg": {"license": "Apache-2.0"}}
    assert found.licence == "apache-2.0"


@pytest.mark.parametrize("config", [{}, {"license": 1}, {"license": ""}, {"licence": "x" * 65}, {"pretrained_cfg": []}])
def test_a_licence_that_is_not_stated(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "model.safetensors").write_bytes(FILE)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find(tmp_path).licence is None


def test_a_local_copy_of_the_known_file_has_its_licence(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(FILE)
    known = Weights(repo="org/tiny", revision=None, sha256=SHA256, licence="bsd-3-clause")
    assert find(tmp_path, known).licence == "bsd-3-clause"
    assert find(tmp_path, replace(known, sha256="0" * 64)).licence is None


def test_an_existing_path_comes_before_a_repository(
    hub: HubServer, known: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    (tmp_path / "org" / "tiny" / "a.safetensors").write_bytes(FILE)
    monkeypatch.chdir(tmp_path)
    assert find("org/tiny").path == Path("org/tiny/a.safetensors")
    assert not hub.requests
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find("~/org/tiny").path == tmp_path / "org/tiny/a.safetensors"


@pytest.mark.parametrize(
    "source",
    ["", "tiny", "./org/tiny", "/absent/model.safetensors", "a/b/c", "org/x.safetensors", "org/x.pth", "a b/c", "a/b\0",
     "org/" + "x" * 5000 + "/y", Path("org/tiny")],
)  # fmt: skip
def test_what_is_neither_here_nor_a_repository(hub: HubServer, source: str | Path) -> None:
    expected = (
        r"there is no (folder or file '([./a]|org/x)|file or folder .* expected 'org/name' or 'org/name@revision')"
    )
    with pytest.raises(WeightsError, match=expected):
        find(source)
    assert not hub.requests


@pytest.mark.parametrize("source", [False, None, 1, ["org/tiny"]])
def test_what_is_no_source_at_all(source: Any) -> None:
    with pytest.raises(InputError, match=r"expected True, False, a path, or 'org/name\["):
        find(source)


def test_everything_is_loaded(tmp_path: Path) -> None:
    model, found = Tiny(), local(tmp_path, state())
    report = load_into(model, found, head=("fc.",), keep_head=True)
    for name, tensor in state().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert set(report.loaded) == set(state())
    assert (report.reinitialised, report.unused) == ((), ())
    assert (report.origin, report.sha256, report.pinned) == (str(found.path), found.sha256, False)


def test_a_new_head_stays_as_it_was_made(tmp_path: Path) -> None:
    model = Tiny(num_classes=7)
    before = model.fc.weight.detach().clone()
    report = load_into(model, local(tmp_path, state()), head=["fc."], keep_head=False)
    assert torch.equal(model.fc.weight, before)
    assert torch.equal(model.conv.weight, state()["conv.weight"])
    assert set(report.reinitialised) == set(report.unused) == {"fc.weight", "fc.bias"}
    assert set(report.loaded) == set(state()) - set(report.unused)


def test_a_file_without_a_head_serves_a_new_head(tmp_path: Path) -> None:
    trunk = {name: tensor for name, tensor in state().items() if not name.startswith("fc.")}
    report = load_into(Tiny(7), local(tmp_path, trunk), head=("fc.",), keep_head=False)
    assert (report.reinitialised, report.unused) == (("fc.weight", "fc.bias"), ())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_cast(tmp_path: Path, dtype: torch.dtype) -> None:
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    model = Tiny()
    load_into(model, local(tmp_path, cast), head=("fc.",), keep_head=True)
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, cast["conv.weight"].float())


def test_the_counter_of_a_batch_norm_may_be_missing(tmp_path: Path) -> None:
    tensors = state()
    del tensors["norm.num_batches_tracked"]
    report = load_into(Tiny(), local(tmp_path, tensors), head=("fc.",), keep_head=True)
    assert set(report.loaded) == set(tensors)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("norm.running_mean"), "1 missing: norm.running_mean. Expected the weights of this"),
        (lambda t: t.update(more=torch.ones(1)), "1 not expected: more. Expected the weights of this"),
        (
            lambda t: t.update({"conv.weight": torch.ones(4, 3, 1, 1)}),
            r"1 with a different shape: conv.weight \(file \[4, 3, 1, 1\], model \[4, 3, 3, 3\]\). Expected "
            r"the weights of",
        ),
        (
            lambda t: t.update({"conv.bias": torch.ones(4, dtype=torch.int64)}),
            r"1 with a different dtype: conv\.bias \(file",
        ),
        (lambda t: t.update({"fc.weight": torch.ones(9, 4)}), "Only the head differs: use the file's number of"),
        (lambda t: (t.pop("fc.weight"), t.pop("conv.bias")), "2 missing: conv.bias, fc.weight. Expected"),
        (
            lambda t: [t.update({f"module.{name}": t.pop(name)}) for name in list(t)],
            r"8 missing: conv.weight, conv.bias, norm.weight, ...; 9 not expected: module\.",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path: Path, change: Callable[[Any], object], expected: str) -> None:
    tensors, model = state(), Tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(tensors)
    with pytest.raises(WeightsError, match=rf"^{tmp_path}/model.safetensors does not fit Tiny: .*{expected}"):
        load_into(model, local(tmp_path, tensors), head=("fc.",), keep_head=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} was changed"


def test_the_backbone_has_to_fit_also_under_a_new_head(tmp_path: Path) -> None:
    tensors = state()
    del tensors["conv.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: conv\.bias\. Expected"):
        load_into(Tiny(7), local(tmp_path, tensors), head=("fc.",), keep_head=False)


def test_the_report_reads_well() -> None:
    report = LoadReport(
        origin="https://hub.example/org/tiny",
        loaded=("a", "b"),
        reinitialised=("fc.weight",),
        unused=("fc.weight",),
        sha256="1" * 64,
        revision="2" * 40,
        licence="mit",
        pinned=True,
    )
    assert str(report).splitlines() == [
        "2 tensors from https://hub.example/org/tiny at 222222222222, sha256 111111111111, pinned",
        "licence: mit",
        "newly initialized: fc.weight",
        "not used: fc.weight",
    ]
    bare = replace(report, reinitialised=(), unused=(), sha256=None, revision=None, licence=None, pinned=False)
    assert str(bare) == "2 tensors from https://hub.example/org/tiny, not pinned\nlicence: not stated"


def foreign(tensors: dict[str, Tensor], *notes: str) -> Callable[[Path], ConvertedCheckpoint]:
    return lambda path: ConvertedCheckpoint(tensors, {"classes": ["a", "b", "c"]}, notes)


def test_a_file_of_another_program_is_read_by_the_model_s_own_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match=r"a\.pth is not accepted; expected a \.safetensors file\. Loading a pickle"):
        find(path)
    found = find(path, read_foreign=foreign(state(), "taken from net"))
    assert found == ResolvedWeights(
        path, {"classes": ["a", "b", "c"]}, str(path), None, sha256_file(path), None, False, notes=("taken from net",)
    )
    assert found.shapes()["fc.weight"] == (3, 4)
    model = Tiny()
    report = load_into(model, found, head=("fc.",), keep_head=True)
    assert torch.equal(model.fc.weight, state()["fc.weight"])
    assert str(report).splitlines()[-1] == "note: taken from net"


def test_a_published_file_of_another_program_has_its_licence(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"anything")
    known = FileWeights(
        filename="b.pth", sha256=sha256_file(path), locations=(), licence="cc-by-nc-4.0", repo_setting="yolo_nas_repo"
    )
    found = find_weights(path, known, name="tiny", read_foreign=foreign(state()))
    assert (found.licence, found.pinned) == ("cc-by-nc-4.0", True)
    with pytest.raises(WeightsError, match="no pretrained weights are published for tiny"):
        find_weights(True, known, name="tiny")


class Sleepy(ModelInterface, Tiny):
    """A network with a part that is not used, and with two forms."""

    def dormant_parameters(self) -> frozenset[str]:
        return frozenset({"conv.bias"})

    def take_form(self, names: Any) -> None:
        self.seen = set(names)


def test_what_a_model_calls_dormant_may_be_missing_and_it_takes_the_form_of_the_file(tmp_path: Path) -> None:
    tensors = state()
    del tensors["conv.bias"]
    model = Sleepy()
    report = load_into(model, local(tmp_path, tensors), head=("fc.",), keep_head=True)
    assert model.seen == set(tensors)
    assert report.spare == ("conv.bias",)
    assert "missing in the file but not needed: conv.bias (1)" in str(report)
    del tensors["conv.weight"]
    with pytest.raises(WeightsError, match=r"1 missing: conv\.weight\. Expected"):
        load_into(Sleepy(), local(tmp_path, tensors), head=("fc.",), keep_head=True)
