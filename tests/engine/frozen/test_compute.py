import os
from types import SimpleNamespace

import pytest
import torch

from feeds import Small, make_feed
from zoo.engine.accelerator import make_accelerator
from zoo.engine.frozen import compute as feature_pass
from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.compute import FeaturePass, Split
from zoo.engine.frozen.shards import FeatureShards
from zoo.errors import DataError, InputError


def run_of(model, accelerator=None, batch_size=4):
    engine = BackboneEngine(model, device="cpu", fuse=False)
    return FeaturePass(engine, accelerator or make_accelerator("cpu"), batch_size=batch_size, num_workers=0)


def expected_of(model, split):
    """What the backbone gives image by image, view by view."""
    rows, feed = [], split.feed
    model.eval()
    with torch.no_grad():
        for index, view in split.places(range(split.samples)):
            pixels, _ = feed.samples[index, view]
            inputs, _ = feed.prepare(pixels[None], None, 0, 0)
            rows.append(model.trunk(inputs))
    return torch.cat(rows)


def part_of(number, of):
    """An accelerator's face, of one process of several that do not wait."""
    return SimpleNamespace(
        process_index=number, num_processes=of, device=torch.device("cpu"), wait_for_everyone=lambda: None
    )


def test_places_go_view_by_view():
    split = Split(make_feed(3), 2)
    assert split.samples == 6
    assert split.places(range(6)) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert split.places(range(2, 4)) == [(2, 0), (0, 1)]
    (part,) = run_of(Small()).first(make_feed(3))
    assert part.shape == (1, 4)


@pytest.mark.parametrize("views", [1, 3])
def test_features_are_the_backbones_in_eval_mode_with_their_classes(views):
    model = Small().train()
    run, split, done = run_of(model), Split(make_feed(10, augment="crop-flip"), views), []
    run.advance = done.append
    kept = run.into_memory(split, torch.float32)
    parts, rows = kept.take(list(range(split.samples)))
    torch.testing.assert_close(parts[0], expected_of(model, split), rtol=0, atol=1e-6)
    assert rows.values.flatten().tolist() == list(range(10)) * views
    assert (parts[0].requires_grad, float(model.norm.num_batches_tracked)) == (False, 0)
    assert done[-1] == run.computed == 10 * views
    assert done == sorted(done)
    assert run.seconds > 0


def test_views_differ_and_repeat():
    run, split = run_of(Small()), Split(make_feed(4, augment="crop-flip"), 2)
    first, again = (run.into_memory(split, torch.float32).take(list(range(8)))[0][0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[:4], first[4:])


def test_what_is_on_disk_is_not_computed_again(tmp_path):
    split, shards = Split(make_feed(10), 1), FeatureShards(tmp_path, 10, 3)
    first = run_of(Small())
    whole = first.onto_disk(split, torch.float32, shards).take(list(range(10)))[0][0].clone()
    shards.path_of(1).unlink()
    second = run_of(Small())
    second.advance = (done := []).append
    again = second.onto_disk(split, torch.float32, shards).take(list(range(10)))[0][0]
    assert (first.computed, second.computed) == (10, 3)
    assert done == [7, 10]
    assert torch.equal(again, whole)  # the same batches, so the same bits


def test_each_process_computes_its_share(tmp_path):
    split, shards = Split(make_feed(10), 1), FeatureShards(tmp_path, 10, 2)
    alone = run_of(Small(), part_of(1, 2))
    with pytest.raises(InputError, match=r"another process are missing from .* a folder that all of them share"):
        alone.onto_disk(split, torch.float32, shards)
    assert shards.missing() == [0, 2, 4]
    assert alone.computed == 4
    other = run_of(Small(), part_of(0, 1))
    kept = other.onto_disk(split, torch.float32, shards)
    assert other.computed == 6
    expected = run_of(Small()).into_memory(split, torch.float32).take(list(range(10)))[0][0]
    torch.testing.assert_close(kept.take(list(range(10)))[0][0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_are_kept_in_other_numbers(dtype):
    run, split = run_of(Small()), Split(make_feed(5), 1)
    (part,), _ = run.into_memory(split, dtype).take([0, 1, 2, 3, 4])
    assert part.dtype == dtype
    (exact,), _ = run.into_memory(split, torch.float32).take([0, 1, 2, 3, 4])
    assert torch.equal(part, exact.to(dtype))


def test_numbers_too_large_are_refused_in_words():
    model = Small()
    with torch.no_grad():
        model.conv.weight *= 1e8
    with pytest.raises(DataError, match="bfloat16 or float32"):
        run_of(model).into_memory(Split(make_feed(5), 1), torch.float16)


def test_a_file_that_is_cut_short_while_a_run_uses_it_changes_nothing(tmp_path):
    split, shards = Split(make_feed(10), 1), FeatureShards(tmp_path, 10, 3)
    kept = run_of(Small()).onto_disk(split, torch.float32, shards)
    expected = kept.take(list(range(10)))[0][0].clone()
    for shard in range(len(shards)):
        os.truncate(shards.path_of(shard), 0)  # a mapped file would end this process
    assert torch.equal(kept.take(list(range(10)))[0][0], expected)


def test_features_that_are_too_large_for_the_memory_stay_in_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_pass, "measure_free_memory", lambda device: 0)
    monkeypatch.setattr(feature_pass.KeptFeatures, "load", None)
    split, shards = Split(make_feed(10), 1), FeatureShards(tmp_path, 10, 3)
    assert run_of(Small()).onto_disk(split, torch.float32, shards).count == 10
