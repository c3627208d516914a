import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from hub_server import HubServer
from loopback import Answer, Loopback
from zoo.errors import InputError, WeightsError
from zoo.weights.places import UNVERIFIED, find_file_weights, place_file_weights
from zoo.weights.spec import ConvertedCheckpoint, FileWeights, ResolvedWeights, Weights
from zoo.weights.user_config import config

CONTENT = b"\x80 what was published"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TENSORS = {"fc.weight": torch.zeros(2, 3)}
OWN = save(TENSORS)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def site() -> Iterator[Loopback]:
    with Loopback() as site:
        yield site


@pytest.fixture
def known(site: Loopback) -> FileWeights:
    """Weights of which two places are known; at first neither has them."""
    return FileWeights(
        filename="tiny_coco.pth",
        sha256=SHA256,
        locations=(site.url("/first/tiny_coco.pth"), site.url("/second/tiny_coco.pth")),
        licence="licenseref-tiny",
        repo_setting="yolo_nas_repo",
    )


def read(path: Path) -> ConvertedCheckpoint:
    assert path.read_bytes() == CONTENT
    return ConvertedCheckpoint(TENSORS, {"classes": ["a", "b"]}, ("taken from net",))


def find(known: FileWeights, folder: Path, **options: Any) -> ResolvedWeights:
    return find_file_weights(known, read, name="tiny", cache_dir=folder, **options)


def test_the_first_place_that_has_them_counts_and_the_cache_comes_before_all(
    site: Loopback, known: FileWeights, tmp_path: Path
) -> None:
    site.answers["/second/tiny_coco.pth"] = Answer(CONTENT)
    found = find(known, tmp_path)
    assert (found.origin, found.sha256, found.licence, found.pinned) == (
        "tiny_coco.pth",
        SHA256,
        "licenseref-tiny",
        True,
    )
    assert list(found.parts()) == [TENSORS]
    assert found.config == {"classes": ["a", "b"]}
    assert found.notes == (f"downloaded from {known.locations[1]}", "taken from net")
    assert site.requests == ["/first/tiny_coco.pth", "/second/tiny_coco.pth"]
    again = find(known, tmp_path)
    assert (again.sha256, again.notes) == (SHA256, ("taken from net",))
    assert len(site.requests) == 2


def test_the_user_s_repository_comes_first(
    hub: HubServer, site: Loopback, known: FileWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("me/mine", {"tiny_coco.pth": CONTENT})
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", "me/mine")
    found = find(known, tmp_path)
    assert (found.origin, found.revision, found.licence) == (f"{hub.endpoint}/me/mine", commit, "licenseref-tiny")
    assert site.requests == []
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", f"me/mine@{commit}")
    assert find(known, tmp_path / "other").revision == commit


def test_the_repository_may_hold_a_converted_file_whose_card_does_not_change_the_licence(
    hub: HubServer, site: Loopback, known: FileWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("me/mine", {"model.safetensors": OWN, "config.json": b'{"model": "tiny", "licence": "apache-2.0"}'})
    monkeypatch.setattr(config, "yolo_nas_repo", "me/mine")
    found = find(known, tmp_path)
    assert found.licence == "licenseref-tiny"
    assert found.shapes() == {"fc.weight": (2, 3)}
    assert site.requests == []


@pytest.mark.parametrize(
    ("files", "answer"),
    [
        (
            {"tiny_coco.pth": b"another"},
            "tiny_coco.pth: its content differs from the published file (SHA-256 ",
        ),
        ({"README.md": b""}, "model.safetensors: "),
        ({"model.safetensors": OWN, "config.json": b'{"model": "big"}'}, "model.safetensors: it is for big"),
        (None, "tiny_coco.pth: {hub} has no repository me/mine, or you have no access to it"),
    ],
)
def test_after_the_repository_come_the_published_places(
    hub: HubServer,
    site: Loopback,
    known: FileWeights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes] | None,
    answer: str,
) -> None:
    if files is not None:
        hub.add("me/mine", files)
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", "me/mine")
    with pytest.raises(WeightsError) as caught:
        find(known, tmp_path)
    assert f"  {hub.endpoint}/me/mine, {answer.format(hub=hub.endpoint)}" in str(caught.value)
    assert "repository of your own" not in str(caught.value)
    site.answers["/first/tiny_coco.pth"] = Answer(CONTENT)
    assert find(known, tmp_path).notes[0] == f"downloaded from {known.locations[0]}"


def test_between_the_repository_and_the_addresses_comes_the_mirror(
    hub: HubServer, site: Loopback, known: FileWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Weights(
        repo="them/copies", filename="a.safetensors", revision=None, sha256=None, licence="licenseref-tiny"
    )
    known = replace(known, mirror=mirror)
    site.answers["/second/tiny_coco.pth"] = Answer(b"no", 403)
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", "me/mine")
    with pytest.raises(WeightsError) as caught:
        find(known, tmp_path)
    places = [line.partition(":/")[2].partition(",")[0].partition(": ")[0] for line in str(caught.value).splitlines()]
    assert [place.split("/", 2)[-1] for place in places[1:5]] == [
        "me/mine", "them/copies", "first/tiny_coco.pth", "second/tiny_coco.pth"
    ]  # fmt: skip
    site.requests.clear()
    commit = hub.add("them/copies", {"a.safetensors": OWN})
    found = find(known, tmp_path)
    assert (found.origin, found.revision) == (f"{hub.endpoint}/them/copies", commit)
    assert (found.licence, found.pinned, found.notes) == ("licenseref-tiny", False, (UNVERIFIED,))
    assert site.requests == []
    pin = replace(mirror, revision=commit, sha256=hashlib.sha256(OWN).hexdigest())
    pinned = find(replace(known, mirror=pin), tmp_path)
    assert (pinned.pinned, pinned.notes) == (True, ())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find(known, tmp_path).path == found.path


def test_if_no_place_has_them_each_is_named_with_its_answer(site: Loopback, known: FileWeights, tmp_path: Path) -> None:
    site.answers["/first/tiny_coco.pth"] = Answer(b"no", 403)
    site.answers["/second/tiny_coco.pth"] = Answer(b"<html>")
    with pytest.raises(WeightsError) as caught:
        find(known, tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "could not download the weights of tiny; tried:"
    assert lines[1] == f"  {known.locations[0]}: it answered 403 (Forbidden)"
    assert lines[2].startswith(f"  {known.locations[1]}: it sent a different file: its SHA-256 is ")
    assert lines[3] == (
        f"If you have tiny_coco.pth (sha256 {SHA256[:12]}...), pass its path (--weights, "
        "pretrained='/path/tiny_coco.pth'). Otherwise use random weights (--no-pretrained, pretrained=False)."
    )
    assert "If it is in your own Hub repository, set the environment variable ZOO_YOLO_NAS_REPO" in lines[4]


def test_offline_nothing_is_asked_and_the_cache_serves(
    site: Loopback, known: FileWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers["/first/tiny_coco.pth"] = Answer(CONTENT)
    find(known, tmp_path / "full")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find(known, tmp_path / "full").sha256 == SHA256
    with pytest.raises(WeightsError, match=r"first/tiny_coco\.pth: skipped, HF_HUB_OFFLINE is set"):
        find(known, tmp_path / "empty")
    assert len(site.requests) == 1


@pytest.mark.parametrize("repo", ["mine", "me/mine/x", "../mine", "https://hub/me/mine"])
def test_a_repository_that_is_none(
    known: FileWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str
) -> None:
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", repo)
    with pytest.raises(InputError, match=r"ZOO_YOLO_NAS_REPO \(or zoo\.config\.yolo_nas_repo\) is .*expected a repos"):
        find(known, tmp_path)


def test_without_a_folder_the_cache_of_this_machine_is_used(
    site: Loopback, known: FileWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    site.answers["/first/tiny_coco.pth"] = Answer(CONTENT)
    found = find_file_weights(known, read, name="tiny")
    assert found.path == tmp_path / "cache" / "zoo" / f"{SHA256[:12]}-tiny_coco.pth" == place_file_weights(known)


def test_two_processes_at_once_download_once(site: Loopback, known: FileWeights, tmp_path: Path) -> None:
    site.answers["/first/tiny_coco.pth"] = Answer(CONTENT, delay=0.5)
    code = f"""
from zoo.weights.places import find_file_weights
from zoo.weights.spec import ConvertedCheckpoint, FileWeights
known = FileWeights(**{asdict(known)!r})
read = lambda path: ConvertedCheckpoint({{}}, {{}})
print(find_file_weights(known, read, name="tiny", cache_dir={str(tmp_path)!r}).sha256)
"""
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in running] == [SHA256] * 2
    assert site.requests == ["/first/tiny_coco.pth"]
