"""What can go wrong between a Hub and a model: for each fault what the user sees, and the state afterwards.

The client and the server are real; only waiting is not.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, utils
from safetensors.torch import save

from hub_server import HubServer
from loopback import Answer, Loopback
from zoo.errors import (
    InputError,
    WeightsAccessError,
    WeightsContentError,
    WeightsError,
    WeightsNetworkError,
    WeightsNotFoundError,
    WeightsStorageError,
)
from zoo.weights.find import find_weights
from zoo.weights.hub import HubFileRequest, fetch_file
from zoo.weights.spec import Weights

ROOT = Path(__file__).parents[2]
close_session = getattr(utils, "close_session", None) or utils.reset_sessions  # the latter before client 1.0
FILE = save({"fc.weight": torch.arange(5000, dtype=torch.float32)})
DAMAGED = FILE[:-1] + bytes([FILE[-1] ^ 1])
SHA256, WRONG = (hashlib.sha256(content).hexdigest() for content in (FILE, DAMAGED))
OTHER = save({"fc.weight": torch.ones(5000)})
CDN = "GET .*/model.safetensors"
WAYS_OUT = r"Options: \(1\) run `zoo weights export DIR tiny` on a machine with a network"


@dataclass
class World:
    """A Hub with a repository, what is asked of it, and the means to break both."""

    hub: HubServer
    known: Weights
    patch: pytest.MonkeyPatch
    asked: bool | str = True  # as `pretrained`
    wanted: Weights = field(init=False)  # what the registry is made to say
    token: str | None = None
    sites: list[Loopback] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = self.known

    def find(self) -> Any:
        return find_weights(self.asked, self.wanted, name="tiny", token=self.token)

    def want(self, **changes: Any) -> None:
        self.wanted = replace(self.wanted, **changes)

    def unpin(self) -> None:
        self.want(revision=None, sha256=None)

    def cache(self) -> Path:
        """Download the file; return it."""
        path: Path = self.find().path
        self.hub.requests.clear()
        return path

    def set_proxy(self, address: str) -> None:
        self.patch.setenv("HTTP_PROXY", address)
        self.patch.delenv("NO_PROXY")
        close_session()

    def cut_network(self) -> None:
        self.patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        self.patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
        )

    def heal(self) -> None:
        self.hub.faults.clear()
        self.hub.tokens, self.hub.gated, self.hub.private = None, {}, set()
        self.patch.undo()
        close_session()
        self.asked, self.wanted, self.token = True, self.known, None


@pytest.fixture
def world(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: None if is_here() else sleep(seconds))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    commit = hub.add("org/tiny", {"model.safetensors": FILE})
    with pytest.MonkeyPatch.context() as patch:
        world = World(hub, Weights(repo="org/tiny", revision=commit, sha256=SHA256, licence="mit"), patch)
        yield world
        patch.undo()
        close_session()


def is_here() -> bool:
    """Whether this is the thread of the test; the server, in others, really waits."""
    return threading.current_thread() is threading.main_thread()


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        fault: What happens, in words.
        arrange: Makes it happen.
        sees: What the user reads, a pattern; empty: nothing, because the weights are had all the same.
        keeps: Whether the file is in the cache afterwards.
        gets: How often the file was downloaded; None: it does not matter.
    """

    fault: str
    arrange: Callable[[World], object]
    sees: str = ""
    keeps: bool = False
    gets: int | None = None


def fails(match: str, **what: Any) -> Callable[[World], object]:
    what = {"times": None} | what
    return lambda world: world.hub.fail(match, **what)


def after(first: Callable[[World], object], then: Callable[[World], object]) -> Callable[[World], object]:
    return lambda world: (first(world), then(world))


def gate(world: World) -> None:
    world.hub.tokens, world.hub.gated = {"hf_friend", "hf_stranger"}, {"org/tiny": {"hf_friend"}}


def damage(world: World) -> None:
    world.cache().write_bytes(DAMAGED)


def proxy(answer: Answer) -> Callable[[World], object]:
    def arrange(world: World) -> None:
        site = Loopback()
        site.__enter__()
        world.sites.append(site)
        path = f"{world.hub.endpoint}/org/tiny/resolve/{world.known.revision}/model.safetensors"
        site.answers[path] = answer
        world.set_proxy(site.url(""))

    return arrange


def move_main(world: World) -> None:
    world.unpin()
    world.cache()
    world.hub.add("org/tiny", {"model.safetensors": FILE}, str(world.known.revision))  # the old commit stays there
    world.hub.add("org/tiny", {"model.safetensors": OTHER})


def remove_file(world: World) -> None:
    world.unpin()
    world.cache()
    world.hub.add("org/tiny", {"README.md": b"moved away"})


def switch_off(world: World) -> None:
    world.patch.setattr(constants, "HF_HUB_OFFLINE", True)


DOWN = "HEAD .*/resolve/"
CACHED: Callable[[World], object] = World.cache
UNPINNED: Callable[[World], object] = lambda world: (world.unpin(), world.cache())  # noqa: E731
ROWS = [
    # answers to the look-up
    Row("500 to the look-up", fails(DOWN, status=500), rf"answered 500 \(it may be down\) .*{WAYS_OUT}", gets=0),
    Row("502 to the look-up", fails(DOWN, status=502), rf"answered 502 \(it may be down\) .*{WAYS_OUT}", gets=0),
    Row("503 to the look-up", fails(DOWN, status=503), rf"answered 503 \(it may be down\) .*{WAYS_OUT}", gets=0),
    Row("504 to the look-up", fails(DOWN, status=504), rf"answered 504 \(it may be down\) .*{WAYS_OUT}", gets=0),
    Row("503 to the look-up, twice", fails(DOWN, status=503, times=2), keeps=True, gets=1),
    Row("429 to the look-up", fails(DOWN, status=429), r"answered 429 \(too many requests\)", gets=0),
    Row("429 to the look-up, once", fails(DOWN, status=429, times=1), keeps=True, gets=1),
    Row("408 to the look-up", fails(DOWN, status=408), r"answered 408 \(request timeout\)", gets=0),
    Row("400 to the look-up", fails(DOWN, status=400), r"answered 400 \(bad request\) when asked for model", gets=0),
    Row("403 to the look-up", fails(DOWN, status=403), r"refuses access to org/tiny \(403\)\. Log in again", gets=0),
    Row(
        "a token that is not accepted",
        lambda world: (setattr(world.hub, "tokens", set()), setattr(world, "token", "hf_secret")),
        r"does not accept the token for org/tiny \(401\)\. Log in again \(hf auth login\), pass another token=",
        gets=0,
    ),
    Row("gated, no token", gate, r"org/tiny is gated, and no valid token was sent\. Accept its terms at .*/org/tiny"),
    Row(
        "gated, a token without access",
        lambda world: (gate(world), setattr(world, "token", "hf_stranger")),
        r"org/tiny is gated, and the token has no access\. Accept its terms",
    ),
    Row("gated, a token with access", lambda world: (gate(world), setattr(world, "token", "hf_friend")), keeps=True),
    Row(
        "private, no token",
        lambda world: world.hub.private.add("org/tiny"),
        r"has no repository org/tiny, or you have no access to it\. Check the name; if it is private, log in",
    ),
    Row("no such repository", lambda world: world.want(repo="org/absent"), r"has no repository org/absent, or you"),
    Row(
        "no such commit",
        lambda world: world.want(revision="0" * 40),
        rf"org/tiny at .* has no revision '{'0' * 40}'\. Expected a branch, a tag or a full commit",
    ),
    Row(
        "no such file",
        lambda world: world.want(filename="absent.safetensors"),
        r"has no file 'absent\.safetensors' in revision .*never \.bin or \.pth files",
    ),
    Row(
        "only a pickle there",
        lambda world: (
            world.hub.add("org/old", {"pytorch_model.bin": b"\x80"}),
            world.unpin(),
            world.want(repo="org/old"),
        ),
        r"has no file 'model\.safetensors' .*never \.bin or \.pth files",
        gets=0,
    ),
    Row("reset in the look-up", fails(DOWN, reset=True), rf"connection to .* failed \(\w+: .*{WAYS_OUT}", gets=0),
    Row("reset in the look-up, twice", fails(DOWN, reset=True, times=2), keeps=True, gets=1),
    Row("silence in the look-up, once", fails(DOWN, delay=2.2, times=1), keeps=True, gets=1),
    # answers that are not those of a Hub
    Row(
        "no commit announced",
        fails(DOWN, headers={"X-Repo-Commit": None}),
        r"sent an invalid response for model\.safetensors of org/tiny.*\. Check HF_ENDPOINT and the pro",
    ),
    Row(
        "a commit that is none",
        lambda world: (world.unpin(), world.hub.fail(DOWN, headers={"X-Repo-Commit": "main"}, times=None)),
        r"returned the commit 'main' for org/tiny; expected 40 hexadecimal digits\. Check HF_ENDPOINT",
        keeps=True,
    ),
    Row(
        "a commit that climbs",
        lambda world: (world.unpin(), world.hub.fail(DOWN, headers={"X-Repo-Commit": "../../../x"}, times=None)),
        r"sent model\.safetensors of org/tiny with the X-Repo-Commit '\.\./\.\./\.\./x', which would write",
        gets=0,
    ),
    Row(
        "an ETag that climbs",
        fails(DOWN, headers={"X-Linked-ETag": '"../../../../escaped"'}),
        r"sent model\.safetensors of org/tiny with the X-Linked-ETag .*escaped.* Nothing was written\. "
        r"Do not use this endpoint \(HF_ENDPOINT\)",
        gets=0,
    ),
    Row(
        "an ETag that climbs, at the second request",
        after(
            fails(DOWN, status=503, times=1), fails(DOWN, headers={"X-Linked-ETag": r'W/"..\\..\\escaped"'}, times=None)
        ),
        r"sent model\.safetensors of org/tiny with the X-Linked-ETag .*escaped.* Nothing was written",
        gets=0,
    ),
    Row(
        "no ETag",
        fails(DOWN, headers={"X-Linked-ETag": None}),
        r"sent an invalid response for model\.safetensors of org/tiny",
        gets=0,
    ),
    Row("a wrong ETag, known content", fails(DOWN, headers={"X-Linked-ETag": f'"{"0" * 64}"'}), keeps=True, gets=1),
    Row(
        "a wrong ETag, unknown content",
        lambda world: (world.unpin(), world.hub.fail(DOWN, headers={"X-Linked-ETag": f'"{"0" * 64}"'}, times=None)),
        rf"failed verification: its SHA-256 is {SHA256}, expected {'0' * 64}\. Downloading it again gave the same",
        keeps=True,
        gets=2,
    ),
    # the transfer
    Row("500 to the transfer", fails(CDN, status=500), rf"answered 500 \(it may be down\) .*{WAYS_OUT}", gets=4),
    Row("503 to the transfer, three times", fails(CDN, status=503, times=3), keeps=True, gets=4),
    Row("429 to the transfer, once", fails(CDN, status=429, times=1), keeps=True, gets=2),
    Row("408 to the transfer, once", fails(CDN, status=408, times=1), keeps=True, gets=2),
    Row("an address that has expired", fails(CDN, status=403, times=1), keeps=True, gets=2),
    Row("403 to the transfer", fails(CDN, status=403), r"refuses access to org/tiny \(403\)", gets=4),
    Row("404 to the transfer", fails(CDN, status=404), r"answered 404 \(not found\) when asked for model", gets=1),
    Row("reset before the body", fails(CDN, reset=True), rf"connection to .* failed \(\w+: .*{WAYS_OUT}", gets=4),
    Row("reset before the body, twice", fails(CDN, reset=True, times=2), keeps=True, gets=3),
    Row("reset in the body", fails(CDN, reset=True, truncate=999), r"connection to .* failed \(\w+: ", gets=4),
    Row("reset in the body, twice", fails(CDN, reset=True, truncate=999, times=2), keeps=True, gets=3),
    Row("cut short", fails(CDN, truncate=999), rf"connection to .* failed \(\w+: .*{WAYS_OUT}"),
    Row("cut short, once", fails(CDN, truncate=999, times=1), keeps=True, gets=2),
    Row("cut short, ranges ignored", fails(CDN, truncate=999, ignore_range=True, times=2), keeps=True, gets=3),
    Row("a body that trickles", fails(CDN, rate=100_000), keeps=True, gets=1),
    Row(
        "silence before the body, once", fails(CDN, delay=2.2, times=1), keeps=True
    ),
    Row("a shorter file", fails(CDN, body=FILE[:-1]), r"repeatedly had the wrong length|answered 416"),
    Row("a longer file", fails(CDN, body=FILE + b"!"), r"repeatedly had the wrong length", gets=4),
    Row("a web page instead", fails(CDN, body=b"<html>"), r"repeatedly had the wrong length|answered 416"),
    Row("a shorter file, once", fails(CDN, body=FILE[:-1], times=1), keeps=True, gets=2),
    Row("a flipped bit, once", fails(CDN, corrupt=True, times=1), keeps=True, gets=2),
    Row(
        "a flipped bit, always",
        fails(CDN, corrupt=True),
        rf"failed verification: its SHA-256 is {WRONG}, expected {SHA256}\. Downloading it again gave the same "
        r"content\. Do not use the file; contact the owner of the repository",
        keeps=True,
        gets=2,
    ),
    # with the file in the cache
    Row("pinned and cached, nothing answers", after(CACHED, fails(".*", reset=True)), keeps=True, gets=0),
    Row("unpinned and cached, the Hub is down", after(UNPINNED, fails(".*", status=503)), keeps=True, gets=0),
    Row("unpinned and cached, nothing answers", after(UNPINNED, fails(".*", reset=True)), keeps=True, gets=0),
    Row("unpinned and cached, access was lost", after(UNPINNED, gate), keeps=True, gets=0),
    Row("unpinned and cached, removed from the Hub", remove_file, r"has no file 'model\.safe", keeps=True, gets=0),
    Row("main has moved, pinned", after(move_main, World.heal), keeps=True, gets=0),
    Row("a flipped bit in the cache", damage, keeps=True, gets=1),
    Row(
        "a flipped bit in the cache, the Hub is down",
        after(damage, fails(".*", status=503)),
        rf"its SHA-256 is {WRONG}, expected {SHA256}\. Downloading it again failed: http\S+ answered 503 .*{WAYS_OUT}",
        keeps=True,
    ),
    Row(
        "a flipped bit in the cache, offline",
        after(damage, switch_off),
        rf"expected {SHA256}\. Downloading it again failed: HF_HUB_OFFLINE is set, so nothing is downloaded\. "
        rf"{WAYS_OUT}",
        keeps=True,
        gets=0,
    ),
    Row("an empty file in the cache", lambda world: world.cache().write_bytes(b""), keeps=True, gets=1),
    Row("a broken link in the cache", lambda world: world.cache().resolve().unlink(), keeps=True, gets=1),
    Row(
        "a folder in the cache's place",
        lambda world: (path := world.cache().resolve(), path.unlink(), path.mkdir()),
        r"weights of tiny: .* cannot be read: it is not a regular file\. Remove it",
        gets=0,
    ),
    # this machine
    Row("offline, nothing cached", switch_off, rf"HF_HUB_OFFLINE is set, and model\.safetensors of org/tiny is not in "
        rf"the cache .*{WAYS_OUT}", gets=0),
    Row("offline, cached", after(CACHED, switch_off), keeps=True, gets=0),
    Row("offline, unpinned, cached", after(UNPINNED, switch_off), keeps=True, gets=0),
    Row(
        "no network, nothing cached",
        World.cut_network,
        rf"connection to http://127\.0\.0\.1:9 failed \(.*\), and .* is not in the cache .*{WAYS_OUT}",
        gets=0,
    ),
    Row(
        "a proxy that is not there",
        lambda world: world.set_proxy("http://user:secret@127.0.0.1:9"),
        r"connection to .* through the proxy http://127\.0\.0\.1:9 \(HTTP_PROXY\) failed \(.*Check the proxy",
        gets=0,
    ),
    Row(
        "a proxy that requires a login",
        proxy(Answer(b"", 407)),
        r"the proxy http://127\.0\.0\.1:\d+ \(HTTP_PROXY\) requires a login \(407\)\. Add it to the proxy address",
        gets=0,
    ),
    Row(
        "a proxy with a page of its own",
        proxy(Answer(b"<html>Welcome to the hotel</html>")),
        r"sent an invalid response for .* Check HF_ENDPOINT and the proxy",
        gets=0,
    ),
    Row(
        "an endpoint without https",
        lambda world: world.patch.setattr(constants, "ENDPOINT", "http://mirror.example"),
        r"HF_ENDPOINT is http://mirror\.example, .* can read the token and change the files\. Use https",
        gets=0,
    ),
    Row(
        "a cache that is a file",
        lambda world: Path(constants.HF_HUB_CACHE).parent.mkdir() or Path(constants.HF_HUB_CACHE).write_bytes(b"x"),
        r"cannot be written to the cache .*: (Not a directory|File exists)\. Set HF_HOME to a writable folder",
        gets=0,
    ),
]  # fmt: skip


KINDS: dict[type[WeightsError], str] = {
    WeightsAccessError: r"is gated|does not accept the token|refuses access",
    WeightsNotFoundError: r"has no (repository|revision|file)",
    WeightsNetworkError: r"answered \d|the connection|HF_HUB_OFFLINE|invalid response|requires a login|Use https",
    WeightsContentError: r"verification: its SHA-256 |the wrong length|would write|the commit '",
    WeightsStorageError: r"cannot be (written|read)",
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_fault(world: World, row: Row, tmp_path: Path) -> None:
    row.arrange(world)
    started = time.monotonic()
    if row.sees:
        with pytest.raises(WeightsError) as caught:
            world.find()
        text = str(caught.value)
        assert re.search(row.sees, text), text
        assert re.search(KINDS[type(caught.value)], text), type(caught.value)
        assert "\n" not in text
        assert "secret" not in text
        assert "hf_stranger" not in text
    else:
        assert world.find().path.read_bytes() == FILE
    assert time.monotonic() - started < 10
    assert row.gets is None or world.hub.count("GET") == row.gets
    cache = Path(constants.HF_HUB_CACHE)
    assert bool(kept(cache)) == row.keeps
    assert not list(cache.rglob("*.incomplete"))
    assert not list(cache.parents[1].rglob("escaped")), "nothing iswrite outside the cache"
    if cache.is_file():
        cache.unlink()
    for folder in [path for path in cache.rglob("blobs/*") if path.is_dir()]:
        folder.rmdir()
    world.heal()
    assert world.find().path.read_bytes() == FILE, "the next call works"
    for site in world.sites:
        site.__exit__()


def kept(cache: Path) -> list[Path]:
    """Return the files of weights that the cache holds."""
    return [path for path in cache.rglob("snapshots/*/*.safetensors") if path.is_file()]


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 60
    assert len({row.fault for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/../../x.safetensors", "a\\..\\x", "C:x", ""])
def test_a_file_name_that_climbs(hub: HubServer, name: str) -> None:
    with pytest.raises(WeightsError, match=r"is not a valid file name in a repository\. Expected, for example,"):
        fetch_file(HubFileRequest(model="tiny", repo="org/tiny", filename=name))
    assert not hub.requests
    if name.endswith(".safetensors"):
        with pytest.raises(InputError, match=r"filename is .*expected a \.safetensors file"):
            Weights(repo="org/tiny", revision=None, sha256=None, licence="mit", filename=name)


def test_main_that_has_moved_gives_the_new_commit_and_the_old_stays(world: World) -> None:
    move_main(world)
    found = world.find()
    assert (found.path.read_bytes(), found.pinned) == (OTHER, False)
    assert found.revision != world.known.revision
    world.heal()
    assert world.find().path.read_bytes() == FILE


# ---- several processes


def start(world: World, known: Weights, **options: Any) -> "subprocess.Popen[str]":
    code = f"""
from zoo.weights.spec import Weights
from zoo.weights.find import find_weights
found = find_weights(True, Weights(**{asdict(known)!r}), name="tiny")
print(found.sha256)
"""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **streams, **options)  # type: ignore[call-overload, no-any-return]


def wait_for(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


@pytest.fixture
def large(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights of 4 MB, which can be on their way for a while."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    content = save({"fc.weight": torch.zeros(1_000_000)})
    commit = hub.add("org/large", {"model.safetensors": content})
    return Weights(
        repo="org/large", revision=commit, sha256=hashlib.sha256(content).hexdigest(), licence="mit", size=len(content)
    )


def test_two_processes_at_once_download_once(hub: HubServer, world: World, large: Weights) -> None:
    hub.fail("GET .*/model.safetensors", rate=4_000_000, times=None)
    running = [start(world, large) for _ in range(2)]
    printed = [process.communicate(timeout=60) for process in running]
    assert [out.strip() for out, _ in printed] == [large.sha256] * 2, printed
    assert hub.count("GET .*/model.safetensors") == 1


def test_killed_in_mid_download(hub: HubServer, world: World, large: Weights) -> None:
    hub.fail("GET .*/model.safetensors", rate=200_000, times=1)
    process = start(world, large)
    wait_for(lambda: hub.count("GET") and list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not kept(Path(constants.HF_HUB_CACHE))
    found = find_weights(True, large, name="tiny")
    assert found.sha256 == large.sha256
    assert found.path.stat().st_size == large.size


def test_a_limit_on_the_size_of_files(hub: HubServer, world: World, large: Weights) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    out, err = start(world, large, preexec_fn=limit).communicate(timeout=60)
    assert not out
    assert re.search(
        r"weights of tiny: model\.safetensors of org/large cannot be written to the cache .*: File too large "
        r"\([\d,.]+ MB free\)\. Free some space, set HF_HOME to another disk, or pass cache_dir=\.$",
        err.strip(),
    ), err
    assert not kept(Path(constants.HF_HUB_CACHE))
    assert find_weights(True, large, name="tiny").sha256 == large.sha256


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(hub: HubServer, world: World, large: Weights, small_disk: Path) -> None:
    environment = os.environ | {"HF_HOME": str(small_disk)}
    out, err = start(world, large, env=environment).communicate(timeout=60)
    assert not out
    assert re.search(
        rf"cannot be written to the cache {small_disk}/hub: No space left on device \([\d.]+ MB free\)\. Free "
        r"some space, set HF_HOME to another disk",
        err,
    ), err
    assert not kept(small_disk)
    assert not list(small_disk.rglob("*.incomplete"))
    assert hub.count("GET .*/model.safetensors") == 1, "trying again would not help"
    assert find_weights(True, large, name="tiny").sha256 == large.sha256


# ---- memory


def test_loading_takes_little_more_memory_than_the_file(tmp_path: Path) -> None:
    """The growth from before the network is built to the end of loading: the network itself, and a part of the file."""
    entries = {
        f"layers.{number}": {
            "dtype": "F32",
            "shape": [10**6],
            "data_offsets": [number * 4 * 10**6, (number + 1) * 4 * 10**6],
        }
        for number in range(50)
    }
    header = json.dumps(entries).encode()
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 200 * 10**6)
    code = """
import json, resource, sys
from pathlib import Path
import torch
from torch import nn
from zoo.weights.spec import ResolvedWeights
from zoo.weights.load import load_into

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.ones(1_000_000)) for _ in range(50))

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
found = ResolvedWeights(Path(sys.argv[1]), None, "", None, "0" * 64, None, pinned=False)
found.slots()  # imports what reads it
before = peak()
model = Wide()
load_into(model, found, head=(), keep_head=True)
assert not any(parameter.any() for parameter in model.parameters())
print(json.dumps([before, peak()]))
"""
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    before, after = json.loads(done.stdout)
    assert after - before < 1.2 * path.stat().st_size
