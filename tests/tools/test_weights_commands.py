import hashlib
import re
import shutil
import time
from dataclasses import replace

import pytest
import torch
import typer
from huggingface_hub import constants
from safetensors.torch import save

from tools.weights_commands import app
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.models import registry
from zoo.models.catalog import find_entry, list_models
from zoo.models.registry import add_entry, entries
from zoo.models.weight_store import hub_cache

FILE = save({"fc.weight": torch.zeros(2, 3)})
SHA256 = hashlib.sha256(FILE).hexdigest()


@pytest.fixture(autouse=True)
def commit(hub, monkeypatch, tmp_path):
    """A Hub whose resnet18 is pinned to a small file, and whose resnet34 is not pinned."""
    list_models()
    known = {name: entry for name, entry in entries().items() if not getattr(entry.weights, "package", None)}
    monkeypatch.setattr(registry, "_ENTRIES", known)  # what a package brings is always here
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    commit = hub.add("timm/resnet18.a1_in1k", {"model.safetensors": FILE})
    hub.add("timm/resnet34.a1_in1k", {"model.safetensors": FILE})
    entry = find_entry("resnet18")
    add_entry(replace(entry, weights=replace(entry.weights, revision=commit, sha256=SHA256, megabytes=None)))
    return commit


@pytest.fixture
def call(capsys):
    """Returns the exit code and standard output of a command of `zoo weights`."""

    def run(*argv):
        code = app([str(word) for word in argv], prog_name="zoo weights", standalone_mode=False)
        return code or 0, capsys.readouterr().out

    return run


def rows(text):
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def test_the_list_tells_what_is_here(call, hub):
    code, out = call("list")
    assert code == 0
    assert set(list_models(pretrained=True)) <= set(rows(out))
    assert re.search(r"resnet18 +no +- +apache-2\.0 +yes +timm/resnet18\.a1_in1k", out)
    assert re.search(r"resnet101 +no +179 MB +apache-2\.0 +yes", out)
    assert re.search(r"resnet34 +no +- +apache-2\.0 +no", out)
    assert re.search(r"yolo_nas_s +no +- +licenseref-yolo-nas-non-commercial +no +yolo_nas_s_coco\.pth", out)
    assert out.count("the images of ImageNet were released for non-commercial research") == 1
    assert not hub.requests
    call("pull", "resnet18")
    _, out = call("list", "resnet18")
    assert re.search(r"resnet18 +yes +0\.0 MB", out)
    assert "resnet34" not in out
    with pytest.raises(InputError, match=r"no model with weights fits 'vgg\*'"):
        call("list", "vgg*")


def test_pulling(call, hub, commit):
    code, out = call("pull", "resnet18", "ResNet-34")
    assert code == 0
    first, second = out.splitlines()
    assert first == f"resnet18: 0.0 MB, sha256 {SHA256[:12]}, pinned, licence apache-2.0"
    assert re.fullmatch(rf"resnet34: .*, sha256 {SHA256[:12]}, not pinned, commit [0-9a-f]{{40}}, licence .*", second)
    hub.requests.clear()
    call("pull", "resnet18")
    assert not hub.requests
    with pytest.raises(InputError, match="unknown model 'resnet_18x'"):
        call("pull", "resnet50", "resnet_18x")
    assert not hub.requests, "the wrong name was told first"


def test_pulling_only_what_is_commercial(call, monkeypatch):
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", "1")
    with pytest.raises(LicenceError, match="licenseref-yolo-nas-non-commercial"):
        call("pull", "yolo_nas_s")


def test_verifying(call, hub):
    assert call("verify") == (0, "no weights are on this machine yet: zoo weights pull MODEL\n")
    call("pull", "resnet18")
    assert call("verify") == (0, f"ok    resnet18: SHA-256 {SHA256[:12]}... matches (as published)\n")
    (path,) = (path for path in (hub_cache() / "models--timm--resnet18.a1_in1k" / "blobs").iterdir())
    path.write_bytes(b"damaged")
    code, out = call("verify", "resnet18")
    assert code == 1
    assert f"WRONG resnet18: {hub_cache()}" in out
    assert f"expected {SHA256}" in out
    assert out.splitlines()[-1] == "wrong: resnet18"
    assert call("verify", "resnet34")[0] == 1, "what was asked for is not here"


def test_verifying_online_prints_what_the_registry_lacks(call, hub, commit):
    code, out = call("verify", "--online", "resnet18", "resnet34")
    assert code == 0
    assert "ok    resnet18: this version of zoo lacks size" in out
    other = hub.store.resolve("timm/resnet34.a1_in1k", "main")[0]
    table = out.partition("to copy into the registry:\n")[2].splitlines()
    assert table == [
        f"  resnet18: revision='{commit}', sha256='{SHA256}', size={len(FILE)}",
        f"  resnet34: revision='{other}', sha256='{SHA256}', size={len(FILE)}",
    ]
    hub.add("timm/resnet18.a1_in1k", {"model.safetensors": FILE + b"!"})
    code, out = call("verify", "--online", "resnet18")
    assert code == 1
    assert f"has no revision '{commit}'" in out


def test_where(call, tmp_path):
    _, out = call("where")
    assert f"{hub_cache()}" in out
    assert f"{tmp_path}/own/zoo" in out
    call("pull", "resnet18")
    assert re.search(rf"resnet18 +{hub_cache()}/models--timm--resnet18\.a1_in1k/snapshots/", call("where")[1])
    assert re.fullmatch(r"resnet34 +not on this machine\n", call("where", "resnet34")[1])


def test_a_folder_goes_to_a_machine_without_a_network(call, hub, tmp_path):
    code, out = call("export", tmp_path / "usb", "resnet18", "resnet34")
    assert code == 0
    assert out.splitlines()[-1] == f"2 models in {tmp_path}/usb. There: zoo weights import usb"
    shutil.rmtree(constants.HF_HUB_CACHE)
    hub.requests.clear()
    hub.fail(".*", reset=True, times=None)
    code, out = call("import", tmp_path / "usb")
    assert code == 0
    assert out.splitlines()[-1] == "set HF_HUB_OFFLINE=1, or these look for news on the Hub first: resnet34"
    assert call("pull", "resnet18")[0] == 0
    assert not hub.requests
    with pytest.raises(WeightsError, match=r"absent/weights\.json cannot be used"):
        call("import", tmp_path / "absent")


def test_every_command_has_help_with_an_example(capsys):
    for command in ("list", "pull", "verify", "where", "export", "import"):
        with pytest.raises((SystemExit, typer.Exit)):
            app([command, "--help"], prog_name="zoo weights")
        out = capsys.readouterr().out
        assert f"zoo weights {command}" in out
        assert "Example" in out
