import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from feeds import Small, make_feed
from zoo.engine.accelerator import make_accelerator
from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.cache import keep_features
from zoo.engine.frozen.compute import Split
from zoo.engine.frozen.keys import feature_folder
from zoo.engine.frozen.shards import FeatureShards
from zoo.errors import InputError, StorageError
from zoo.settings.preset import Preset


class Said:
    """Collects what a run says."""

    def __init__(self):
        self.lines, self.bars = [], 0

    def log(self, line):
        self.lines.append(line)

    def counting(self, description, total):
        from contextlib import nullcontext

        self.bars += 1
        return nullcontext(lambda done, of: None)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def keep(model=None, train=None, val=None, *, engine=None, **fields):
    said = Said()
    preset = Preset(**{"epochs": 5, "batch_size": 4, "warmup_epochs": 0.0} | fields)
    engine = engine or BackboneEngine(model or Small(), device="cpu", fuse=False)
    splits = [Split(train or make_feed(10), preset.views), Split(val or make_feed(4, shift=50), 1)]
    kept = keep_features(engine, splits, preset, make_accelerator("cpu"), said, epochs=preset.epochs, num_workers=0)
    return kept, said


def values(kept):
    return [features.take(list(range(features.count)))[0][0] for features in kept.splits]


def test_features_are_computed_once_and_found_again():
    first, said = keep()
    assert (first.choice.where, first.facts["computed"], said.bars) == ("disk", 14, 1)
    assert said.lines[0] == (
        f"caching features of the frozen backbone: 14 backbone passes instead of 70; {said.lines[0].split('; ')[1]}"
    )
    assert re.fullmatch(
        r"features of 14 images: 0\.4 kB on disk, computed in \d+\.\d s \([\d,]+ images/s\); each epoch runs "
        r"only the head, which saves about \d+:\d\d",
        said.lines[1],
    )
    second, said = keep()
    assert (second.facts["computed"], said.bars) == (0, 0)
    assert len(said.lines) == 1
    assert said.lines[0].startswith("features of 14 images: 0.4 kB on disk, reused from an earlier run; ")
    for one, other in zip(values(first), values(second), strict=True):
        assert torch.equal(one, other)
    assert first.facts["keys"] == second.facts["keys"]


def test_one_epoch_uses_what_is_there_and_else_keeps_nothing():
    kept, said = keep(epochs=1)
    assert kept.splits == []
    assert said.lines == ["feature cache off: it would save less than a tenth of the backbone passes"]
    keep()
    kept, _ = keep(epochs=1)
    assert (kept.choice.where, kept.facts["computed"]) == ("disk", 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": Small(seed=1)},
        {"train": make_feed(10, shift=1)},
        {"train": make_feed(10, seed=1)},
        {"train": make_feed(10, augment="crop-flip")},
        {"train": make_feed(9)},
        {"views": 2},
        {"cache_dtype": "float16"},
        {"engine": BackboneEngine(Small(), device="cpu", fuse=True)},
        {"engine": BackboneEngine(Small(), device="cpu", fuse=False, dtype=torch.bfloat16)},
    ],
    ids=["weights", "files", "seed", "augment", "count", "views", "numbers", "fused", "precision"],
)
def test_what_decides_the_features_decides_the_key(changed):
    before, _ = keep()
    after, _ = keep(**changed)
    assert before.facts["keys"][0] != after.facts["keys"][0]
    assert after.facts["computed"] > 0


def test_a_changed_head_or_rate_changes_nothing():
    model = Small()
    before, _ = keep(model)
    with torch.no_grad():
        model.last.weight += 1
    after, _ = keep(model, lr=0.5, epochs=7)
    assert after.facts["computed"] == 0
    assert before.facts["keys"] == after.facts["keys"]


def test_other_classes_are_other_targets():
    train = make_feed(10)
    keep()
    relabelled = replace(train, images=replace(train.images, targets=tuple(range(10, 0, -1))))
    after, _ = keep(train=relabelled)
    assert after.facts["computed"] == 10  # those to score are found again


def test_in_memory_nothing_is_written(tmp_path):
    kept, said = keep(cache="memory", views=2, train=make_feed(10, augment="crop-flip"))
    assert kept.choice.where == "memory"
    assert not (tmp_path / "cache").exists()
    assert said.lines[1].startswith("features of 14 images, 2 augmented versions of each training image: ")
    assert kept.facts["keys"] == []
    assert [features.count for features in kept.splits] == [20, 4]


def test_a_note_lies_beside_the_shards():
    kept, _ = keep(views=2, train=make_feed(10, augment="crop-flip"))
    about = json.loads((feature_folder(kept.facts["keys"][0]) / "about.json").read_text())
    assert (about["images"], about["views"], about["numbers"]) == (10, 2, "float32")
    assert about["engine"]["fused"] is False


class Maps(Small):
    """A backbone that gives maps, as a detector's does."""

    def trunk(self, images):
        maps = self.norm(self.conv(images))
        return maps, maps[:, :2, ::2, ::2]


def test_maps_are_kept_as_float16_and_vectors_as_float32():
    kept, _ = keep(Maps())
    assert kept.facts["numbers"] == "float16"
    parts, _ = kept.splits[0].take([3])
    assert [part.shape for part in parts] == [(1, 4, 14, 14), (1, 2, 7, 7)]
    assert keep()[0].facts["numbers"] == "float32"
    assert keep(Maps(), cache_dtype="float32")[0].facts["numbers"] == "float32"


@pytest.mark.parametrize(
    ("factor", "numbers"), [(1.0, "float16"), (1e-6, "float32"), (1e6, "float32"), (0.0, "float32")]
)
def test_maps_that_float16_does_not_hold_are_kept_as_float32(factor, numbers):
    model = Maps()
    with torch.no_grad():
        model.norm.weight.fill_(factor)
        model.norm.bias.zero_()
    assert keep(model)[0].facts["numbers"] == numbers


def test_what_is_not_possible_is_refused(monkeypatch):
    monkeypatch.setattr("zoo.engine.frozen.cache._free_disk", lambda folder: 10)
    with pytest.raises(InputError, match=r"cache=disk needs 0\.2 kB, but only 0\.0 kB are free"):
        keep(cache="disk")


def test_what_a_killed_run_has_kept_is_used(monkeypatch):
    monkeypatch.setattr("zoo.engine.frozen.cache.choose_per_shard", lambda sample_bytes: 4)
    first, _ = keep()
    whole = [part.clone() for part in values(first)]
    (feature_folder(first.facts["keys"][0]) / "00001.safetensors").unlink()
    again, said = keep()
    assert again.facts["computed"] == 4
    assert "14 images: 0.4 kB on disk, 4 of them computed in " in said.lines[1]
    assert all(torch.equal(one, other) for one, other in zip(whole, values(again), strict=True))


class Opaque(Small):
    """Holds what no key can tell."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.generator = torch.Generator()


def test_what_no_key_can_tell_is_kept_in_memory_only(tmp_path):
    kept, said = keep(Opaque())
    assert kept.choice.where == "memory"
    assert (
        "(not on disk: Opaque.generator is a Generator, whose state cannot be read, so cached features cannot"
        in said.lines[0]
    )
    assert not (tmp_path / "cache").exists()
    with pytest.raises(InputError, match=r"cache=disk is not possible: Opaque\.generator is a Generator"):
        keep(Opaque(), cache="disk")


def test_a_folder_that_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file, where a folder is expected")
    kept, said = keep()
    assert kept.choice.where == "memory"
    assert f"(not on disk: {tmp_path / 'cache'}" in said.lines[0]
    assert len(said.lines) == 2
    with pytest.raises(InputError, match=r"cache=disk is not possible: .*cache.* is not writable"):
        keep(cache="disk")
    monkeypatch.setattr("zoo.engine.frozen.cache.psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    kept, said = keep()
    assert (kept.choice.where, kept.splits) == ("off", [])
    assert said.lines[0].startswith("feature cache off: features need 0.2 kB; free: 0.0 kB of memory, none on disk (")


def test_a_disk_that_fills_up_does_not_end_a_run(monkeypatch):
    expected, _ = keep(cache="memory")
    writes = []

    def fail(shards, *what):
        writes.append(shards)
        if len(writes) > 1:
            raise StorageError("features cannot be kept: No space left on device. Free some space (zoo cache clear).")
        real(shards, *what)

    real = FeatureShards.write
    monkeypatch.setattr(FeatureShards, "write", fail)
    kept, said = keep()
    assert len(writes) == 2
    assert kept.choice.where == "memory"
    assert (kept.facts["where"], kept.facts["computed"], kept.facts["keys"]) == ("memory", 14, [])
    assert "(not on disk: features cannot be kept: No space left on device. Free" in said.lines[1]
    for one, other in zip(values(kept), values(expected), strict=True):
        assert torch.equal(one, other)
    writes.clear()
    with pytest.raises(StorageError, match="No space left"):
        keep(cache="disk", train=make_feed(11))


def test_a_cache_that_can_only_be_read_is_used(monkeypatch):
    keep()
    monkeypatch.setattr("zoo.engine.frozen.cache._why_unwritable", lambda folder: "it is read-only")
    kept, _ = keep()
    assert (kept.choice.where, kept.facts["computed"]) == ("disk", 0)
