import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from hub_server import HubServer
from loopback import Answer, Loopback
from zoo.data.transforms import Preprocess
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.models import registry
from zoo.models.catalog import list_models
from zoo.models.registry import Entry, add_entry, entries
from zoo.models.weight_store import find_stored, list_stored, name_places, pull_weights, verify_online, verify_stored
from zoo.weights.spec import ConvertedCheckpoint, FileWeights, Weights

FILE = save({"fc.weight": torch.zeros(2, 3)})
DAMAGED = FILE[:-1] + b"\x01"
SHA256 = hashlib.sha256(FILE).hexdigest()
PTH = b"\x80 what was published"


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No models but those of the test, and caches of its own."""
    list_models()
    monkeypatch.setattr(registry, "_ENTRIES", {})
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))


def add(name: str, weights: Weights | FileWeights | None, **facts: Any) -> Entry:
    entry = Entry(
        name=name,
        task="classification",
        build=lambda **_: None,
        summary="",
        parameters=0.1,
        preprocess=Preprocess(),
        weights=weights,
        **facts,
    )
    add_entry(entry)
    return entry


@pytest.fixture
def pinned(hub: HubServer) -> Weights:
    """The weights of `resnet_pinned`, on the Hub; its name begins with that of a family, as all do."""
    commit = hub.add("org/pinned", {"model.safetensors": FILE})
    weights = Weights(repo="org/pinned", revision=commit, sha256=SHA256, licence="mit", size=len(FILE))
    add("resnet_pinned", weights)
    return weights


@pytest.fixture
def unpinned(hub: HubServer) -> Weights:
    """The weights of `resnet_unpinned`."""
    hub.add("org/unpinned", {"model.safetensors": FILE})
    weights = Weights(repo="org/unpinned", revision=None, sha256=None, licence="mit", megabytes=len(FILE) / 1e6)
    add("resnet_unpinned", weights)
    return weights


@pytest.fixture
def on_web() -> Any:
    """The weights of `resnet_web`, at an address of their publisher."""
    with Loopback() as site:
        site.answers["/a.pth"] = Answer(PTH)
        weights = FileWeights(
            filename="a.pth",
            sha256=hashlib.sha256(PTH).hexdigest(),
            locations=(site.url("/a.pth"), site.url("/absent")),
            licence="cc-by-nc-4.0",
            repo_setting="yolo_nas_repo",
        )
        add("resnet_web", weights, read_foreign=lambda path: ConvertedCheckpoint({}, {}))
        yield weights


def test_all_models_with_weights_are_listed_and_nothing_is_asked(
    hub: HubServer, pinned: Weights, unpinned: Weights, on_web: FileWeights
) -> None:
    add("resnet_bare", None)
    found = list_stored()
    assert [(stored.model, stored.path, stored.size, stored.origin) for stored in found] == [
        ("resnet_pinned", None, len(FILE), "org/pinned"),
        ("resnet_unpinned", None, None, "org/unpinned"),
        ("resnet_web", None, None, "a.pth"),
    ]
    assert [stored.model for stored in list_stored("*pinned")] == ["resnet_pinned", "resnet_unpinned"]
    assert not hub.requests
    with pytest.raises(InputError, match=r"no weights are published for resnet_bare\. zoo weights list shows"):
        find_stored("resnet_bare")
    with pytest.raises(InputError, match=r"no weights are published for resnet_bare"):
        pull_weights("resnet_bare")
    with pytest.raises(InputError, match=r"unknown model 'absent'"):
        find_stored("absent")


def test_what_is_pulled_is_here(hub: HubServer, pinned: Weights, unpinned: Weights, on_web: FileWeights) -> None:
    for name in ("resnet_pinned", "ResNet-Unpinned", "resnet_web"):
        found = pull_weights(name)
        stored = find_stored(name)
        assert stored.path is not None
        assert (stored.path, stored.revision) == (found.path, found.revision)
        assert stored.size == len(PTH if name == "resnet_web" else FILE)
    hub.requests.clear()
    pull_weights("resnet_pinned")
    assert not hub.requests


def test_a_file_of_another_program_is_pulled_with_its_configuration_and_not_read(hub: HubServer) -> None:
    commit = hub.add("org/foreign", {"model.safetensors": FILE, "config.json": b'{"model_type": "detr"}'})

    def read(path: Path) -> ConvertedCheckpoint:
        raise AssertionError("its library need not be installed")

    add("resnet_foreign", Weights(repo="org/foreign", revision=None, sha256=None, licence="mit"), read_foreign=read)
    pull_weights("resnet_foreign")
    stored = find_stored("resnet_foreign")
    assert stored.config is not None
    assert (stored.revision, stored.config.read_bytes()) == (commit, b'{"model_type": "detr"}')


def test_weights_that_are_not_commercial_are_not_pulled_where_only_such_are_wanted(
    on_web: FileWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", "1")
    with pytest.raises(LicenceError, match=r"weights of resnet_web have the licence cc-by-nc-4\.0.*commercial=True"):
        pull_weights("resnet_web")
    assert find_stored("resnet_web").path is None


def test_verifying(hub: HubServer, pinned: Weights, unpinned: Weights, on_web: FileWeights) -> None:
    assert list(verify_stored()) == []
    for name in ("resnet_pinned", "resnet_unpinned", "resnet_web"):
        pull_weights(name)
    hub.requests.clear()
    assert [(verdict.model, verdict.ok) for verdict in verify_stored()] == [
        ("resnet_pinned", True),
        ("resnet_unpinned", True),
        ("resnet_web", True),
    ]
    texts = [verdict.text for verdict in verify_stored()]
    assert texts[0] == f"SHA-256 {SHA256[:12]}... matches (as published)"
    assert texts[1] == f"SHA-256 {SHA256[:12]}... matches (as announced by the Hub; no published checksum)"
    path = find_stored("resnet_pinned").path
    assert path is not None
    path.write_bytes(DAMAGED)
    (wrong,) = verify_stored(["resnet_pinned"])
    assert not wrong.ok
    assert wrong.text == (
        f"{path} has SHA-256 {hashlib.sha256(DAMAGED).hexdigest()}, expected {SHA256}. It is not used; "
        "zoo weights pull resnet_pinned downloads it again"
    )
    assert path.read_bytes() == DAMAGED, "nothing is removed"
    assert not hub.requests
    pull_weights("resnet_pinned")
    assert all(verdict.ok for verdict in verify_stored())


def test_verifying_what_is_not_here(pinned: Weights) -> None:
    (verdict,) = verify_stored(["resnet_pinned"])
    assert (verdict.ok, verdict.text) == (False, "not downloaded: zoo weights pull resnet_pinned")


def test_small_files_of_unknown_content_are_held_against_nothing(hub: HubServer) -> None:
    hub.fail("HEAD", headers={"X-Linked-ETag": '"abc"'}, times=None)
    hub.add("org/odd", {"model.safetensors": FILE})
    add("resnet_odd", Weights(repo="org/odd", revision=None, sha256=None, licence="mit"))
    pull_weights("resnet_odd")
    (verdict,) = verify_stored()
    assert (verdict.ok, verdict.text) == (True, f"SHA-256 {SHA256}; no reference checksum is known")


def test_the_registry_is_held_against_the_hub(
    hub: HubServer, pinned: Weights, unpinned: Weights, on_web: FileWeights
) -> None:
    first, second, third = verify_online()
    assert (first.model, first.ok, first.text) == ("resnet_pinned", True, "as pinned here")
    assert first.on_hub == {"revision": pinned.revision, "sha256": SHA256, "size": len(FILE)}
    commit = second.on_hub["revision"]
    assert second.on_hub == {"revision": commit, "sha256": SHA256, "size": len(FILE)}
    assert replace(unpinned, revision=str(commit), sha256=SHA256).pinned
    assert (second.ok, second.text) == (True, "this version of zoo lacks revision, sha256, size")
    assert third.ok
    assert third.text == (
        f"{on_web.locations[0]}: it answered 200, {len(PTH)} bytes; {on_web.locations[1]}: it answered 404 (Not Found)"
    )
    assert hub.count("GET") == 0, "nothing is downloaded"
    assert all(stored.path is None for stored in list_stored())


@pytest.fixture
def mirrored(hub: HubServer, on_web: FileWeights) -> Weights:
    """A copy of the weights of `resnet_web` in a repository."""
    hub.add("org/copies", {"a.safetensors": FILE})
    mirror = Weights(
        repo="org/copies", filename="a.safetensors", revision=None, sha256=None, licence="cc-by-nc-4.0", notice=("No.",)
    )
    registry._ENTRIES.clear()
    add("resnet_web", replace(on_web, mirror=mirror), read_foreign=lambda path: ConvertedCheckpoint({}, {}))
    return mirror


def test_a_mirror_is_pulled_found_and_verified(mirrored: Weights) -> None:
    assert find_stored("resnet_web").path is None
    found = pull_weights("resnet_web")
    stored = find_stored("resnet_web")
    assert (stored.path, stored.revision, stored.weights) == (found.path, found.revision, mirrored)
    assert stored.origin == "org/copies"
    (verdict,) = verify_stored()
    assert verdict.ok
    assert "as announced by the Hub" in verdict.text


def test_the_pin_of_a_mirror_is_told(hub: HubServer, on_web: FileWeights, mirrored: Weights) -> None:
    (verdict,) = verify_online()
    assert verdict.ok
    assert verdict.text.startswith(
        f"org/copies: this version of zoo lacks revision, sha256, size; {on_web.locations[0]}: "
    )
    pin = verdict.on_hub
    assert (pin["sha256"], pin["size"]) == (SHA256, len(FILE))
    assert replace(mirrored, revision=str(pin["revision"]), sha256=SHA256).pinned
    assert hub.count("GET") == 0, "nothing is downloaded"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sha256": "0" * 64}, f"sha256 is {SHA256}, expected {'0' * 64}"),
        ({"size": 7}, f"size is {len(FILE)}, expected 7"),
        ({"size": None, "megabytes": 5.0}, f"size is {len(FILE):,} bytes, expected 5.0 MB"),
        ({"revision": "0" * 40}, f"has no revision '{'0' * 40}'"),
        ({"filename": "absent.safetensors"}, "has no file 'absent.safetensors'"),
        ({"repo": "org/absent"}, "has no repository org/absent"),
    ],
)
def test_what_differs_from_the_hub_is_told(hub: HubServer, pinned: Weights, changes: dict[str, Any], text: str) -> None:
    add("resnet_pinned", replace(pinned, **changes))
    (verdict,) = verify_online()
    assert not verdict.ok
    assert text in verdict.text


def test_without_a_connection_the_first_failure_ends_the_check(
    hub: HubServer, pinned: Weights, unpinned: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail(".*", reset=True, times=None)
    with pytest.raises(WeightsError, match=r"weights of resnet_pinned: the connection to .* failed \(\w+: "):
        list(verify_online())
    assert hub.count("pinned") == 4
    assert hub.count("unpinned") == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set, so the Hub cannot be queried\."):
        list(verify_online())


def test_an_error_of_one_does_not_end_the_check(hub: HubServer, pinned: Weights, unpinned: Weights) -> None:
    hub.fail("HEAD /org/pinned", status=503, times=None)
    first, second = verify_online()
    assert not first.ok
    assert "answered 503 (it may be down)" in first.text
    assert second.ok


def test_the_places_are_named(hub: HubServer, tmp_path: Path) -> None:
    places = list(name_places().values())
    assert places[0] == hub.endpoint
    assert places[1].endswith("huggingface/hub")
    assert places[2] == str(tmp_path / "own" / "zoo")


def test_the_real_registry_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = {stored.model: stored for stored in list_stored()}
    assert set(found) == set(list_models(pretrained=True))
    assert len(entries()) >= len(found) >= 12
    caveats = {stored.weights.caveat for stored in found.values()}
    assert len(caveats) == 2, "ImageNet's, and none"
