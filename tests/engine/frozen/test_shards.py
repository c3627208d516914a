import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.engine.frozen import shard_file
from zoo.engine.frozen.shard_file import write_shard
from zoo.engine.frozen.shards import (
    FeatureShards,
    KeptFeatures,
    Rows,
    choose_per_shard,
    fit_dtype,
    join_rows,
)
from zoo.errors import DataError, InputError, StorageError

ROOT = Path(__file__).parents[3]


def make(samples, dtype=torch.float32, shapes=((7,), (2, 3, 4))):
    """Features and rows that follow from the samples' numbers: two parts, and 0 to 3 rows of 5."""
    parts = []
    for shape in shapes:
        generators = [torch.Generator().manual_seed(number) for number in samples]
        parts.append(torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(dtype))
    return parts, [torch.full((number % 4, 5), float(number)) for number in samples]


def fill(shards, numbers=None, **options):
    for shard in range(len(shards)) if numbers is None else numbers:
        shards.write(shard, *make(shards.samples_of(shard), **options))


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)


def assert_taken(kept, numbers, dtype=torch.float32):
    parts, rows = kept.take(numbers)
    expected, boxes = make(list(map(int, numbers)), dtype)
    assert [part.dtype for part in parts] == [dtype] * 2
    assert all(torch.equal(bits(part), bits(wanted)) for part, wanted in zip(parts, expected, strict=True))
    assert rows.counts.tolist() == [len(own) for own in boxes]
    assert torch.equal(rows.values, torch.cat(boxes))
    return parts, rows


# ---- what is kept comes back


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("per_shard", [1, 4, 10, 100])
def test_features_come_back_bit_for_bit(tmp_path, dtype, per_shard):
    shards = FeatureShards(tmp_path / "new" / "ü", 10, per_shard, key="k")
    assert shards.missing() == list(range(len(shards)))
    fill(shards, dtype=dtype)
    assert shards.missing() == []
    kept = shards.open()
    assert kept.count == 10
    assert kept.device.type == "cpu"
    assert kept.nbytes == 10 * (7 + 24) * dtype.itemsize + 13 * 5 * 4 + 10 * 8
    for numbers in (range(10), [9, 0, 5, 5], torch.tensor([3]), torch.randperm(10)):
        assert_taken(kept, numbers, dtype)


def test_large_parts_are_copied_one_by_one(tmp_path):
    shards = FeatureShards(tmp_path, 5, 2)
    for shard in range(3):
        numbers = shards.samples_of(shard)
        maps = torch.stack([torch.full((4, 64, 64), float(number)) for number in numbers])
        shards.write(shard, [maps, maps[:, 0, 0, :3]], make(numbers)[1])
    parts, _ = shards.open().take([4, 1, 1, 0])
    assert parts[0].shape == (4, 4, 64, 64)
    assert parts[0].mean((1, 2, 3)).tolist() == [4, 1, 1, 0]
    assert parts[1].tolist() == [[n, n, n] for n in (4, 1, 1, 0)]


def test_class_numbers_come_back(tmp_path):
    for dtype, classes in ((torch.int64, [2**62, 0, 7]), (torch.float32, [2**24, 0, 7])):
        shards = FeatureShards(tmp_path / str(dtype), 3, 2)
        targets = torch.tensor(classes, dtype=dtype)[:, None]
        shards.write(0, [torch.zeros(2, 4)], Rows(targets[:2], torch.ones(2, dtype=torch.int64)))
        shards.write(1, [torch.zeros(1, 4)], [targets[2:]])
        _, rows = shards.open().take([2, 0, 1])
        assert rows.values.dtype == dtype
        assert rows.values[:, 0].long().tolist() == [7, classes[0], 0]
        assert rows.counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize("counts", [[0, 0, 0], [2, 2, 2], [0, 3, 1]])
def test_rows_may_be_none_or_many(tmp_path, counts):
    rows = [torch.full((count, 2), float(number)) for number, count in enumerate(counts)]
    kept = KeptFeatures.in_memory([torch.zeros(3, 4)], rows)
    _, taken = kept.take([2, 0, 2])
    assert [own.tolist() for own in taken.split()] == [rows[number].tolist() for number in (2, 0, 2)]
    _, none = kept.take([])
    assert (none.values.shape, none.counts.shape) == ((0, 2), (0,))
    shards = FeatureShards(tmp_path, 3, 3)
    shards.write(0, [torch.zeros(3, 4)], rows)
    assert [own.tolist() for own in shards.open().take([2, 0, 2])[1].split()] == [own.tolist() for own in taken.split()]


def test_features_in_memory_are_taken_likewise(tmp_path):
    parts, rows = make(range(10))
    for kept in (KeptFeatures.in_memory(parts, rows), KeptFeatures.in_memory(parts, join_rows(rows))):
        assert_taken(kept, [9, 0, 5, 5])
        assert kept.count == 10
    shards = FeatureShards(tmp_path, 10, 3)
    fill(shards)
    loaded = shards.open().load()
    assert_taken(loaded, [9, 0, 5, 5])
    assert loaded.nbytes == kept.nbytes


def test_what_was_taken_is_nobody_elses(tmp_path):
    shards = FeatureShards(tmp_path, 4, 2)
    fill(shards)
    kept = shards.open()
    taken, _ = kept.take([1, 2])
    taken[0].fill_(-1)
    assert_taken(kept, [1, 2])


@pytest.mark.parametrize("numbers", [[4], [-1], [0, 99]])
def test_samples_that_are_not_there(numbers):
    parts, rows = make(range(4))
    with pytest.raises(InputError, match=r"samples -?\d+ to -?\d+ were requested; expected 0 to 3\."):
        KeptFeatures.in_memory(parts, rows).take(numbers)


def test_the_file_is_one_that_others_can_read(tmp_path):
    shards = FeatureShards(tmp_path, 3, 3)
    fill(shards, dtype=torch.bfloat16)
    found = load_file(shards.path_of(0))
    assert torch.equal(found["part1"], make(range(3), torch.bfloat16)[0][1])
    assert found["counts"].tolist() == [0, 1, 2]


def test_rows_of_files_that_are_gone_stay(tmp_path):
    shards = FeatureShards(tmp_path, 60, 1)
    fill(shards)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("needs /proc")
    kept = shards.open()
    assert len(os.listdir("/proc/self/fd")) == before
    assert_taken(kept, [59, 0, 30])
    shards = FeatureShards(tmp_path, 10, 3)
    fill(shards)
    kept = shards.open()
    for path in tmp_path.iterdir():
        path.unlink()
    assert_taken(kept, range(10))
    assert shards.missing() == [0, 1, 2, 3]


def test_the_size_of_shards():
    assert choose_per_shard(2_150_400) == 29
    assert choose_per_shard(2048 * 4) == choose_per_shard(4) == 1024
    assert choose_per_shard(10**9) == choose_per_shard(64_000_000) == 1
    shards = FeatureShards(Path("x"), 10, 4)
    assert [shards.samples_of(shard) for shard in range(len(shards))] == [range(4), range(4, 8), range(8, 10)]


# ---- values


def test_values_that_do_not_fit():
    fits = torch.tensor([[65_504.0, -65_504.0]])
    assert fit_dtype(fits, torch.float16).tolist() == fits.tolist()
    assert fit_dtype(fits * 2, torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(
        DataError,
        match=r"features range from -inf to inf as float16; expected finite values\. float16 ends at 65,504: use "
        r"cache_dtype=bfloat16 or float32",
    ):
        fit_dtype(fits * 2, torch.float16)
    with pytest.raises(DataError, match=r"from nan to nan as float32; expected finite values\. Check for damaged"):
        fit_dtype(torch.tensor([1.0, float("nan")]), torch.float32)
    with pytest.raises(InputError, match="cannot be cached as int8; expected float16, bfloat16 or float32"):
        fit_dtype(fits, torch.int8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_nothing_that_is_not_finite_is_written(tmp_path, dtype, value):
    parts, rows = make(range(4), dtype)
    parts[1][3, 1, 2, 3] = value
    shards = FeatureShards(tmp_path, 4, 4)
    with pytest.raises(DataError, match=r"part1 of samples 0 to 3 range from .*; expected finite values\."):
        shards.write(0, parts, rows)
    assert not list(tmp_path.iterdir())


def test_numbers_of_samples_that_do_not_agree(tmp_path):
    parts, rows = make(range(4))
    shards = FeatureShards(tmp_path, 4, 4)
    with pytest.raises(InputError, match="part1 has 3 samples; expected 4"):
        shards.write(0, [parts[0], parts[1][:3]], rows)
    with pytest.raises(InputError, match="counts has 3 samples; expected 4"):
        shards.write(0, parts, rows[:3])
    with pytest.raises(InputError, match=r"rows has shape \(6, 5\); expected \(4, c\)"):
        shards.write(0, parts, Rows(torch.cat(rows), torch.ones(4, dtype=torch.int64)))
    with pytest.raises(InputError, match="no features to cache;"):
        shards.write(0, [], rows)
    with pytest.raises(InputError, match=r"part0 is complex64; expected one of float16"):
        shards.write(0, [parts[0].to(torch.complex64)], rows)
    with pytest.raises(InputError, match=r"there is no shard 1; expected 0 to 0"):
        shards.write(1, parts, rows)
    with pytest.raises(InputError, match=r"count is 0, per_shard 4"):
        FeatureShards(tmp_path, 0, 4)
    with pytest.raises(InputError, match="part0 has 3 samples; expected 4"):
        KeptFeatures.in_memory([parts[0][:3]], rows)
    with pytest.raises(InputError, match="there are no samples to cache;"):
        KeptFeatures.in_memory([parts[0][:0]], [])
    with pytest.raises(InputError, match=r"there are no features to cache"):
        KeptFeatures.in_memory([], rows)


# ---- files that are not used


def damage_length(data):
    return (10**15).to_bytes(8, "little") + data[8:]


def rename_dtype(data):
    return data.replace(b'"part1":{"dtype":"F32"', b'"part1":{"dtype":"I32"')


FAULTS = {
    "empty": lambda data: b"",
    "a byte less": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "within the header": lambda data: data[:100],
    "a byte more": lambda data: data + b"x",
    "zeros": lambda data: bytes(len(data)),
    "a length beyond the file": damage_length,
    "another type of the same size": rename_dtype,
    "another shape of the same size": lambda data: data.replace(b"[4,2,3,4]", b"[4,3,2,4]"),
    "another number of samples": lambda data: data.replace(b"0 to 3 of 10", b"0 to 3 of 11"),
    "another version": lambda data: data.replace(b'"version":"2"', b'"version":"1"'),
    "a web page": lambda data: b"<html>" + data,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_shard_is_computed_again(tmp_path, fault):
    shards = FeatureShards(tmp_path, 10, 4)
    fill(shards)
    whole = shards.path_of(0).read_bytes()
    damaged = FAULTS[fault](whole)
    assert damaged != whole
    shards.path_of(0).write_bytes(damaged)
    assert shards.missing() == [0]
    assert shards.damaged() == [0]
    with pytest.raises(
        DataError, match=r"1 of 3 cached feature files in .* are missing or damaged, the first is 00000"
    ):
        shards.open()
    fill(shards, [0])
    assert shards.missing() == []
    assert shards.path_of(0).read_bytes() == whole
    assert_taken(shards.open(), range(10))


def test_shards_of_others_are_not_used(tmp_path):
    shards = FeatureShards(tmp_path, 10, 4, key="a")
    fill(shards)
    assert FeatureShards(tmp_path, 10, 4, key="a").missing() == []
    assert FeatureShards(tmp_path, 10, 4, key="b").missing() == [0, 1, 2], "another key"
    assert FeatureShards(tmp_path, 11, 4, key="a").missing() == [0, 1, 2], "other samples"
    assert FeatureShards(tmp_path, 10, 5, key="a").missing() == [0, 1], "other shards"
    shards.path_of(1).replace(shards.path_of(0))
    assert shards.missing() == [0, 1], "a shard in the place of another one"
    save_file({"part0": torch.zeros(4, 2), "rows": torch.zeros(0, 1), "counts": torch.zeros(4)}, shards.path_of(0))
    assert shards.missing() == [0, 1], "a file of somebody else"
    shards.path_of(0).unlink()
    shards.path_of(0).mkdir()
    assert shards.missing() == [0, 1], "a folder"
    with pytest.raises(StorageError, match=r"features: .* cannot be written: Is a directory"):
        fill(shards, [0])


def test_shards_that_do_not_go_together(tmp_path):
    shards = FeatureShards(tmp_path, 8, 4)
    fill(shards, [0])
    fill(shards, [1], dtype=torch.float16)
    assert shards.missing() == shards.damaged() == [0, 1], "which of them is right is not known"
    with pytest.raises(DataError, match=r"2 of 2 cached feature files in .* are missing or damaged"):
        shards.open()
    fill(shards, [0, 1])
    assert_taken(shards.open(), range(8))


def test_any_flipped_bit_and_a_lost_page_are_noticed(tmp_path):
    """Also in the features, and in the rows, of which a flip makes another class."""
    shards = FeatureShards(tmp_path, 4, 4)
    fill(shards)
    path = shards.path_of(0)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert shards.missing() == [0], f"byte {place}"
    path.write_bytes(whole[:-64] + bytes(64))
    assert shards.missing() == [0]
    path.write_bytes(whole)
    assert shards.missing() == []


def test_a_shard_is_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shards = FeatureShards(tmp_path / "shards", 4, 4)
    fill(shards)
    os.utime(shards.path_of(0), (10**9, 10**9))
    assert shards.missing() == []
    monkeypatch.setattr("hashlib.file_digest", None)
    assert_taken(shards.open(), range(4))


def test_counts_that_do_not_fit_the_rows_are_damage(tmp_path):
    shards = FeatureShards(tmp_path, 2, 2)
    parts, rows = {"part0": torch.zeros(2, 3)}, torch.zeros(3, 1)
    for counts in ([1, 1], [-1, 4], [1, 2]):
        tensors = {"counts": torch.tensor(counts), **parts, "rows": rows}
        write_shard(shards.path_of(0), tensors, shards._mark(range(2)))
        assert shards.missing() == ([] if counts == [1, 2] else [0])


def test_names_in_a_file_lead_nowhere(tmp_path):
    """A header's names are never used as paths: one that means to leave the folder makes the file another one."""
    shards = FeatureShards(tmp_path / "in", 4, 4)
    fill(shards)
    data = shards.path_of(0).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["../../out"] = header.pop("part1")
    mark = {name: text for name, text in header.pop("__metadata__").items() if name != "digest"}
    digest = shard_file._digest(mark, header)
    text = json.dumps({"__metadata__": {**mark, "digest": digest}, **header}).encode()
    shards.path_of(0).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    assert shards.missing() == [0]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "00000.safetensors"]


# ---- several processes, and what may happen to one

WRITER = """
import os, sys, time, torch
from pathlib import Path
from zoo.errors import StorageError
from zoo.engine.frozen.shards import FeatureShards

shards = FeatureShards(Path(sys.argv[1]), 40, 4, key="k")
hang = lambda number: print("writing", flush=True) or time.sleep(600)
try:
    for shard in list(range(len(shards))) * int(sys.argv[2]):
        numbers = shards.samples_of(shard)
        part = torch.tensor(list(numbers), dtype=torch.float32)[:, None] + torch.zeros(100_000)
        if shard == int(sys.argv[3]):
            os.fsync = hang
        shards.write(shard, [part], [torch.full((number % 3, 2), float(number)) for number in numbers])
        print(shard, flush=True)
except StorageError as error:
    print(error)
"""


def start(folder, turns, hang_at=-1, **options):
    """Writes all shards so many times, a number for each; stops for ever while it writes the one of `hang_at`."""
    command = [sys.executable, "-c", WRITER, str(folder), str(turns), str(hang_at)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def assert_written(folder):
    shards = FeatureShards(folder, 40, 4, key="k")
    assert shards.missing() == []
    (part,), rows = shards.open().take(range(40))
    assert torch.equal(part, torch.arange(40.0)[:, None].expand(40, 100_000))
    assert rows.counts.tolist() == [number % 3 for number in range(40)]
    assert not list(folder.glob(".*"))


def test_two_processes_write_the_same_shards(tmp_path):
    running = [start(tmp_path, 2) for _ in range(2)]
    printed = [process.communicate(timeout=100)[0].split() for process in running]
    assert printed == [[str(shard) for shard in range(10)] * 2] * 2
    assert_written(tmp_path)


def test_killed_in_mid_write(tmp_path):
    """Killed while a file is half-written: what is whole is used, the rest is computed again."""
    process = start(tmp_path, 1, hang_at=5)
    assert [process.stdout.readline().strip() for _ in range(6)] == ["0", "1", "2", "3", "4", "writing"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".00005.*.tmp"))) == 1
    shards = FeatureShards(tmp_path, 40, 4, key="k")
    assert shards.missing() == [5, 6, 7, 8, 9]
    os.truncate(shards.path_of(2), 1000)
    assert shards.missing() == [2, 5, 6, 7, 8, 9]
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("0*"))}
    for shard in shards.missing():
        numbers = shards.samples_of(shard)
        part = torch.tensor(list(numbers), dtype=torch.float32)[:, None] + torch.zeros(100_000)
        shards.write(shard, [part], [torch.full((number % 3, 2), float(number)) for number in numbers])
    kept = [path for path, when in before.items() if path.stat().st_mtime_ns == when]
    assert kept == [shards.path_of(shard) for shard in (0, 1, 3, 4)], "whole shards are not written again"
    for draft in tmp_path.glob(".*.tmp"):
        os.utime(draft, (0, 0))
    assert_written(tmp_path)


def test_unfinished_files_are_removed_when_they_are_old(tmp_path):
    young, old, other = (tmp_path / name for name in (".00000.aa.tmp", ".00001.bb.tmp", "notes.txt"))
    for path in (young, old, other):
        path.write_text("x")
        os.utime(path, (0, 0))
    os.utime(young)
    assert FeatureShards(tmp_path, 4, 4).missing() == [0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, other.name]


def test_a_limit_on_the_size_of_files(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    printed, _ = start(tmp_path, 1, preexec_fn=limit).communicate(timeout=60)
    assert re.fullmatch(
        r"cannot cache features: .*00000\.safetensors cannot be written: File too large\. Free some space "
        r"\(zoo cache clear\), set XDG_CACHE_HOME to another disk, or use cache=memory or cache=off\.",
        printed.strip(),
    ), printed
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(28, "No space left on device")

    shards = FeatureShards(tmp_path, 4, 4)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        StorageError, match=r"No space left on device \(0\.0 MB are needed, [\d,.]+ MB are free\)\. Free some"
    ):
        fill(shards)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot create .*below: Not a directory\. Free some"):
        fill(FeatureShards(tmp_path / "file" / "below", 4, 4))
