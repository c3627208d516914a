import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from hub_server import HubServer
from loopback import Answer, Loopback
from zoo.data.transforms import Preprocess
from zoo.errors import WeightsError
from zoo.models import registry
from zoo.models.catalog import list_models
from zoo.models.registry import Entry, add_entry
from zoo.models.weight_bundle import export_weights, import_weights
from zoo.models.weight_store import list_stored, pull_weights
from zoo.weights.find import find_weights
from zoo.weights.spec import ConvertedCheckpoint, FileWeights, Weights

FILE = save({"fc.weight": torch.zeros(2, 3)})
SHA256 = hashlib.sha256(FILE).hexdigest()
PTH = b"\x80 what was published"
CONFIG = b'{"model_type": "detr"}'
NAMES = ["resnet_foreign", "resnet_pinned", "resnet_unpinned", "resnet_web"]


def add(name: str, weights: Weights | FileWeights, **facts: Any) -> None:
    entry = {"task": "classification", "build": lambda **_: None, "summary": "", "parameters": 0.1}
    add_entry(Entry(name=name, preprocess=Preprocess(), weights=weights, **entry, **facts))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _models(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Four models: pinned, unpinned, of another program, and at an address of its publisher."""
    list_models()
    monkeypatch.setattr(registry, "_ENTRIES", {})
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    commit = hub.add("org/pinned", {"sub/model.safetensors": FILE})
    hub.add("org/unpinned", {"model.safetensors": FILE})
    hub.add("org/foreign", {"model.safetensors": FILE, "config.json": CONFIG})
    with Loopback() as site:
        site.answers["/a.pth"] = Answer(PTH)
        add(
            "resnet_pinned",
            Weights(repo="org/pinned", revision=commit, sha256=SHA256, licence="mit", filename="sub/model.safetensors"),
        )
        add("resnet_unpinned", Weights(repo="org/unpinned", revision=None, sha256=None, licence="mit"))
        foreign = Weights(repo="org/foreign", revision=None, sha256=None, licence="mit")
        add("resnet_foreign", foreign, read_foreign=lambda path: ConvertedCheckpoint({}, {"classes": ["a"]}))
        on_web = FileWeights(
            filename="a.pth",
            sha256=hashlib.sha256(PTH).hexdigest(),
            locations=(site.url("/a.pth"),),
            licence="cc-by-nc-4.0",
            repo_setting="yolo_nas_repo",
        )
        add("resnet_web", on_web, read_foreign=lambda path: ConvertedCheckpoint({}, {}))
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All four, exported; nothing of them is left on this machine."""
    export_weights(tmp_path / "usb", NAMES)
    forget(tmp_path)
    return tmp_path / "usb"


def forget(tmp_path: Path) -> None:
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    shutil.rmtree(tmp_path / "own", ignore_errors=True)
    assert not any(stored.path for stored in list_stored())


def change(folder: Path, of: str, /, **values: object) -> None:
    manifest = json.loads((folder / "weights.json").read_text())
    for row in manifest["weights"]:
        row.update(values if row["model"] == of else {})
    (folder / "weights.json").write_text(json.dumps(manifest))


def test_a_folder_tells_where_its_files_came_from(hub: HubServer, folder: Path) -> None:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads(files.pop("weights.json"))
    assert files == {
        "resnet_foreign/model.safetensors": FILE,
        "resnet_foreign/config.json": CONFIG,
        "resnet_pinned/model.safetensors": FILE,
        "resnet_unpinned/model.safetensors": FILE,
        "resnet_web/a.pth": PTH,
    }
    rows = {row["model"]: row for row in manifest["weights"]}
    assert list(rows) == NAMES
    assert rows["resnet_pinned"] == {
        "model": "resnet_pinned",
        "repo": "org/pinned",
        "revision": hub.store.resolve("org/pinned", "main")[0],
        "filename": "sub/model.safetensors",
        "sha256": SHA256,
        "size": len(FILE),
        "licence": "mit",
        "config_sha256": None,
    }
    assert (rows["resnet_web"]["repo"], rows["resnet_web"]["revision"]) == (None, None)
    assert rows["resnet_foreign"]["config_sha256"] == hashlib.sha256(CONFIG).hexdigest()


def test_an_imported_folder_serves_without_any_network(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.requests.clear()
    hub.fail(".*", reset=True, times=None)
    taken = import_weights(folder)
    assert [stored.model for stored in taken] == NAMES
    assert all(stored.path is not None for stored in taken)
    found = pull_weights("resnet_pinned")
    assert (found.path.read_bytes(), found.pinned) == (FILE, True)
    assert pull_weights("resnet_web").path.read_bytes() == PTH
    assert not hub.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull_weights("resnet_unpinned").path.read_bytes() == FILE
    entry = registry.entries()["resnet_foreign"]
    foreign = find_weights(True, entry.weights, name="resnet_foreign", read_foreign=entry.read_foreign)
    assert foreign.config == {"classes": ["a"]}
    assert not hub.requests


def test_a_mirror_is_carried_with_its_commit(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/copies", {"a.safetensors": FILE})
    entry = registry.entries()["resnet_web"]
    assert isinstance(entry.weights, FileWeights)
    mirror = Weights(repo="org/copies", filename="a.safetensors", revision=None, sha256=None, licence="cc-by-nc-4.0")
    registry._ENTRIES["resnet_web"] = replace(entry, weights=replace(entry.weights, mirror=mirror))
    export_weights(tmp_path / "usb", ["resnet_web"])
    forget(tmp_path)
    hub.fail(".*", reset=True, times=None)
    (stored,) = import_weights(tmp_path / "usb")
    assert (stored.weights, stored.revision) == (mirror, hub.store.resolve("org/copies", "main")[0])
    assert pull_weights("resnet_web").path.read_bytes() == FILE
    change(tmp_path / "usb", "resnet_web", repo="org/others")
    with pytest.raises(WeightsError, match="repo 'org/others', expected None"):
        import_weights(tmp_path / "usb")


def test_unpinned_weights_serve_without_the_offline_switch_when_nothing_answers(hub: HubServer, folder: Path) -> None:
    import_weights(folder)
    hub.fail(".*", reset=True, times=None)
    assert pull_weights("resnet_unpinned").path.read_bytes() == FILE


def test_the_client_itself_reads_what_was_imported(hub: HubServer, folder: Path) -> None:
    from huggingface_hub import scan_cache_dir

    import_weights(folder)
    found = scan_cache_dir()
    assert not found.warnings
    assert {repo.repo_id for repo in found.repos} == {"org/foreign", "org/pinned", "org/unpinned"}


def test_only_what_is_here_is_exported_if_no_names_are_given(hub: HubServer, tmp_path: Path) -> None:
    assert export_weights(tmp_path / "none") == []
    pull_weights("resnet_pinned")
    hub.requests.clear()
    assert [stored.model for stored in export_weights(tmp_path / "one")] == ["resnet_pinned"]
    assert not hub.requests
    export_weights(tmp_path / "one", ["resnet_unpinned"])
    rows = json.loads((tmp_path / "one" / "weights.json").read_text())["weights"]
    assert [row["model"] for row in rows] == ["resnet_pinned", "resnet_unpinned"], "the earlier ones stay"


def test_damaged_weights_are_not_exported(tmp_path: Path) -> None:
    path = pull_weights("resnet_pinned").path
    path.write_bytes(FILE[:-1] + b"\x01")
    with pytest.raises(WeightsError, match=rf"resnet_pinned are not exported: .*expected {SHA256}"):
        export_weights(tmp_path / "usb")
    assert not (tmp_path / "usb" / "weights.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"file.* cannot be written: .*\. Choose another folder"):
        export_weights(tmp_path / "file", ["resnet_pinned"])


def test_a_damaged_file_is_not_imported_nor_any_other(tmp_path: Path, folder: Path) -> None:
    for path in (folder / "resnet_web" / "a.pth", folder / "resnet_foreign" / "config.json"):
        right = path.read_bytes()
        path.write_bytes(right[:-1] + b"!")
        with pytest.raises(WeightsError, match=rf"{path} failed verification: .*expected .* Nothing was imported"):
            import_weights(folder)
        path.write_bytes(right)
    (folder / "resnet_web" / "a.pth").unlink()
    with pytest.raises(WeightsError, match=r"a\.pth cannot be read: No such file.* Nothing was imported"):
        import_weights(folder)
    assert not any(stored.path for stored in list_stored())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"model": "../../x"}, r"lists an unknown model: unknown model '\.\./\.\./x'"),
        ({"model": 3}, "lists an unknown model: a model name is a string"),
        ({"model": "ResNet-Pinned"}, "for resnet_pinned: model 'ResNet-Pinned', expected 'resnet_pinned'"),
        ({"repo": "org/other"}, "repo 'org/other', expected 'org/pinned'"),
        ({"repo": None}, "repo 'None', expected 'org/pinned'"),
        ({"filename": "../../x.safetensors"}, r"filename '\.\./\.\./x\.safetensors', expected 'sub/model"),
        ({"revision": "0" * 40}, f"revision '{'0' * 40}', expected"),
        ({"revision": "main"}, "revision 'main', expected 40 hexadecimal digits"),
        ({"sha256": "0" * 64}, f"sha256 '{'0' * 64}', expected '{SHA256}'"),
        ({"licence": "gpl-3.0"}, "licence 'gpl-3.0', expected 'mit'"),
        ({"config_sha256": "0" * 64}, r"config\.json cannot be read"),
    ],
)
def test_a_manifest_that_contradicts_the_registry(folder: Path, values: dict[str, Any], text: str) -> None:
    change(folder, "resnet_pinned", **values)
    with pytest.raises(WeightsError, match=text):
        import_weights(folder)
    assert not Path(constants.HF_HUB_CACHE).exists()


@pytest.mark.parametrize("revision", ["main", "../../../x", None, 3])
def test_a_manifest_of_unpinned_weights_needs_a_commit(folder: Path, revision: object) -> None:
    change(folder, "resnet_unpinned", revision=revision)
    with pytest.raises(WeightsError, match=r"for resnet_unpinned: revision .* expected 40 hexadecimal digits"):
        import_weights(folder)


@pytest.mark.parametrize("sha256", ["0" * 64, "../x", None])
def test_a_manifest_of_unpinned_weights_tells_their_content(folder: Path, sha256: object) -> None:
    change(folder, "resnet_unpinned", sha256=sha256)
    with pytest.raises(WeightsError, match=rf"its SHA-256 is {SHA256}, expected {sha256}"):
        import_weights(folder)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "Expecting value"),
        (b"{}", "does not list weights with model, repo"),
        (b'{"weights": [{"model": "resnet_pinned"}]}', "does not list weights with model, repo"),
        (b'{"weights": [], "weights": []}', "duplicate key"),
        (b"[]", "expected a JSON object"),
    ],
)
def test_a_manifest_that_is_none(folder: Path, content: bytes, text: str) -> None:
    (folder / "weights.json").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"weights\.json .*{text}"):
        import_weights(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent/weights\.json cannot be used: .*Expected a folder written by"):
        import_weights(tmp_path / "absent")


def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    Path(constants.HF_HUB_CACHE).parent.mkdir(parents=True, exist_ok=True)
    Path(constants.HF_HUB_CACHE).write_bytes(b"a file")
    with pytest.raises(
        WeightsError,
        match=r"weights of resnet_foreign cannot be written to /.*/hub: Not a "
        r"directory\. Free some space, or set HF_HOME",
    ):
        import_weights(folder)
    Path(constants.HF_HUB_CACHE).unlink()


def test_where_links_cannot_be_made_the_file_itself_is_put(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", refuse)
        patch.setattr(Path, "symlink_to", refuse)
        import_weights(folder)
    hub.fail(".*", reset=True, times=None)
    found = pull_weights("resnet_pinned")
    assert not found.path.is_symlink()
    assert found.path.read_bytes() == FILE


def test_importing_twice_and_over_a_damaged_cache(hub: HubServer, folder: Path) -> None:
    first = import_weights(folder)
    assert first[1].path is not None
    first[1].path.write_bytes(b"damaged")
    assert import_weights(folder) == first
    assert first[1].path.read_bytes() == FILE


def test_files_are_copied_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_weights(folder)

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WeightsError, match=r"cannot be written to .*: No space left on device"):
        import_weights(folder)
    assert all(stored.path is not None for stored in list_stored())
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.tmp"))


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_only_files_of_the_folder_itself_are_imported(folder: Path, tmp_path: Path, kind: str) -> None:
    """A sound file behind a link would do no harm; which file a link leads to is not asked."""
    target = next(path for path in sorted(folder.rglob("*.safetensors")))
    target.rename(tmp_path / "sound.safetensors")
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(tmp_path / "sound.safetensors")
    with pytest.raises(WeightsError, match=r"it is (a symbolic link|not a regular file).*Nothing was imported"):
        import_weights(folder)
