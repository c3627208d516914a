import errno
import hashlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from hub_server import HubServer
from zoo.errors import WeightsContentError, WeightsError, WeightsNetworkError, WeightsNotFoundError
from zoo.weights import attempts
from zoo.weights.attempts import hiding_passwords
from zoo.weights.hub import (
    HubFileRequest,
    fetch_file,
    fetch_if_there,
    find_cached,
    get_endpoint,
    is_plain_path,
    look_up,
)

CONTENT = b"weights" * 1000
WANTED = HubFileRequest(model="tiny", repo="org/tiny", filename="model.safetensors")
WAYS_OUT = (
    r"Options: \(1\) run `hf download org/tiny model\.safetensors --revision main` on a machine with a network, "
    r".*HF_HUB_OFFLINE=1; \(2\) pass the path .*; \(3\) use"
)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited, by us and by the client."""
    waited: list[float] = []
    sleep = time.sleep

    def note(seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():  # of whatever else runs in this process
            sleep(seconds)
        elif seconds:
            waited.append(seconds)

    monkeypatch.setattr(time, "sleep", note)
    return waited


@pytest.fixture
def commit(hub: HubServer) -> str:
    return hub.add("org/tiny", {"model.safetensors": CONTENT, "sub/notes.txt": b"note"})


def refusal(wanted: HubFileRequest, *, force: bool = False) -> str:
    with pytest.raises(WeightsError, match=f"^weights of tiny: .*{wanted.repo}") as caught:
        fetch_file(wanted, force=force)
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_matches(text: str, pattern: str) -> None:
    assert re.search(pattern, text), text


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    root = Path(__file__).parents[2]
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True)


def test_a_file_is_downloaded_and_its_commit_told(hub: HubServer, commit: str) -> None:
    path, found = fetch_file(WANTED)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(constants.HF_HUB_CACHE)
    assert found == commit
    assert [request.method for request in hub.requests] == ["HEAD", "GET"]
    assert hub.requests[0].headers["user-agent"].startswith("zoo/0.")


def test_a_file_in_a_subfolder_belongs_to_the_same_commit(commit: str) -> None:
    path, found = fetch_file(replace(WANTED, filename="sub/notes.txt"))
    assert (path.read_bytes(), found) == (b"note", commit)


def test_the_cache_folder_can_be_chosen(commit: str, tmp_path: Path) -> None:
    path, _ = fetch_file(replace(WANTED, cache_dir=tmp_path / "snapshots" / "cache"))
    assert path.is_relative_to(tmp_path / "snapshots" / "cache" / "models--org--tiny")
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_force_downloads_again(hub: HubServer, commit: str) -> None:
    fetch_file(WANTED)
    fetch_file(replace(WANTED, revision=commit), force=True)
    assert hub.count("GET") == 2


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: HubServer, commit: str) -> None:
    hub.tokens, hub.gated = {"hf_friend"}, {"org/tiny": {"hf_friend"}}
    fetch_file(replace(WANTED, token="hf_friend"))
    assert [request.headers.get("authorization") for request in hub.requests] == ["Bearer hf_friend", None]
    assert "hf_friend" not in repr(replace(WANTED, token="hf_friend"))


def test_a_file_that_is_there(hub: HubServer, commit: str) -> None:
    notes = replace(WANTED, filename="sub/notes.txt", revision=commit)
    for _ in range(2):
        path = fetch_if_there(notes)
        assert path is not None
        assert path.read_bytes() == b"note"
    assert hub.count("GET") == 1


def test_a_file_that_is_not_there_is_asked_for_once(hub: HubServer, commit: str) -> None:
    config = replace(WANTED, filename="config.json", revision=commit)
    assert fetch_if_there(config) is None
    assert hub.count("HEAD") == 1
    hub.fail(".*", reset=True, times=None)
    assert fetch_if_there(config) is None
    assert hub.count(".*") == 1


def test_not_knowing_is_an_error(hub: HubServer, commit: str) -> None:
    hub.fail("HEAD", status=403, times=None)
    with pytest.raises(WeightsError, match="refuses access"):
        fetch_if_there(replace(WANTED, filename="config.json", revision=commit))


def test_a_look_up_tells_commit_digest_and_size(hub: HubServer, commit: str) -> None:
    found = look_up(WANTED)
    assert (found.commit, found.sha256, found.size) == (commit, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    small = look_up(replace(WANTED, filename="sub/notes.txt", revision=commit))
    assert (small.commit, small.sha256, small.size) == (commit, None, 4)
    assert hub.count("GET") == 0
    assert find_cached(WANTED) is None


def test_a_look_up_that_fails(hub: HubServer, commit: str) -> None:
    with pytest.raises(WeightsNotFoundError, match="has no revision 'absent'"):
        look_up(replace(WANTED, revision="absent"))
    hub.fail("HEAD", reset=True, times=None)
    with pytest.raises(WeightsNetworkError, match=r"the connection to .* failed \(\w+: .*\)\. Options"):
        look_up(WANTED)
    assert hub.count("HEAD .*/main/") == 4
    hub.faults.clear()
    hub.fail("HEAD", headers={"X-Repo-Commit": None}, times=None)
    with pytest.raises(WeightsContentError, match="the commit '' for org/tiny; expected 40 hexadecimal digits"):
        look_up(WANTED)


def test_what_is_cached_is_found_without_a_request(hub: HubServer, commit: str) -> None:
    path, _ = fetch_file(WANTED)
    hub.requests.clear()
    assert find_cached(WANTED) == find_cached(replace(WANTED, revision=commit)) == path
    assert find_cached(replace(WANTED, revision="0" * 40)) is None
    assert not hub.requests


@pytest.mark.parametrize("name", ["a", "a/b.txt", "a b", "..a", "a..", ".a/b"])
def test_plain_paths(name: str) -> None:
    assert is_plain_path(name)


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/", "a//b", "a/../b", "../a", "a\\b", "C:a", "a\0b"])
def test_paths_that_are_not_plain(name: str) -> None:
    assert not is_plain_path(name)


def test_the_client_is_left_as_it_was(hub: HubServer, commit: str) -> None:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    before = list(get_session().event_hooks["response"])
    fetch_file(WANTED)
    with pytest.raises(WeightsError):
        fetch_file(replace(WANTED, filename="absent.safetensors"))
    assert get_session().event_hooks["response"] == before


def test_no_try_begins_long_after_the_first_one(hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "LAST_TRY_SECONDS", -1.0)
    hub.fail("GET .*/model.safetensors", status=503, times=None)
    assert "answered 503" in refusal(WANTED)
    assert hub.count("GET") == 1


def test_the_waits_grow(hub: HubServer, commit: str, waits: list[float]) -> None:
    hub.fail("GET .*/model.safetensors", status=503, times=None)
    refusal(WANTED)
    assert waits == [0.5, 2.0, 8.0]


def test_an_absent_repository_is_asked_for_once(hub: HubServer) -> None:
    assert "has no repository" in refusal(replace(WANTED, token="hf_friend")), "401 for strangers, 404 for friends"
    assert hub.count("HEAD") == 1, "not tried again"


def test_a_name_that_the_client_refuses(hub: HubServer) -> None:
    assert "org/ti..ny" in refusal(replace(WANTED, repo="org/ti..ny"))
    assert not hub.requests


def test_look_ups_that_fail(hub: HubServer, commit: str, waits: list[float]) -> None:
    hub.fail("HEAD", status=500, times=None)
    assert_matches(refusal(WANTED), f"answered 500 .*{WAYS_OUT}")
    assert sum(waits) < 24, "the client has waited, we do not start again"


def test_no_network_and_no_cache(hub: HubServer) -> None:
    code = """
import time
waited = []
time.sleep = waited.append
from zoo.weights.hub import HubFileRequest, fetch_file
try:
    fetch_file(HubFileRequest(model="tiny", repo="org/tiny", filename="model.safetensors"))
finally:
    print(sum(waited))
"""
    done = run(code, HF_ENDPOINT="http://127.0.0.1:9")
    where = f"model.safetensors of org/tiny is not in the cache {constants.HF_HUB_CACHE}"
    what = rf"the connection to http://127.0.0.1:9 failed \(.*\), and {where}\. {WAYS_OUT}"
    assert_matches(done.stderr.strip().splitlines()[-1], what)
    assert float(done.stdout) < 24, "the client has waited, we do not start again"


def test_offline(hub: HubServer, commit: str) -> None:
    fetch_file(WANTED)
    hub.requests.clear()
    code = """
from zoo.weights.hub import HubFileRequest, fetch_file
wanted = HubFileRequest(model="tiny", repo="org/tiny", filename="model.safetensors")
print(fetch_file(wanted)[1])
fetch_file(HubFileRequest(model="tiny", repo="org/tiny", filename="model.safetensors", revision="0" * 40))
"""
    start = time.monotonic()
    done = run(code, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://mirror.example")
    assert done.stdout.strip() == commit
    error = done.stderr.strip().splitlines()[-1]
    assert_matches(
        error, r"^zoo\.errors\.WeightsNetworkError: weights of tiny: HF_HUB_OFFLINE is set, and .* is not in the cache"
    )
    assert_matches(error, r"Options: .*--revision 0{40}`")
    assert time.monotonic() - start < 10
    assert not hub.requests


def test_a_full_disk(hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert "cannot be written to the cache" in refusal(WANTED)


def test_an_error_of_no_known_kind(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Data processing error\ndetails")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert_matches(refusal(WANTED), r"cannot be downloaded from .*: RuntimeError: Data processing error$")


def test_an_endpoint_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://user:secret@mirror.example/hub")
    assert get_endpoint() == "https://mirror.example/hub"


def test_plain_http_can_be_allowed(monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> None:
    asked: list[object] = []

    def answer(*arguments: object, **_: object) -> str:
        asked.append(arguments)
        return f"/cache/snapshots/{'0' * 40}/model.safetensors"

    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.example")
    monkeypatch.setenv("ZOO_ALLOW_HTTP", "1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    monkeypatch.setattr("zoo.weights.hub.check_reach", lambda address: None)
    assert fetch_file(WANTED)[1] == "0" * 40
    assert asked == [("org/tiny", "model.safetensors")]


def test_a_password_in_the_endpoint_is_not_logged(caplog) -> None:
    logger = logging.getLogger("huggingface_hub.utils._http")
    with hiding_passwords():
        logger.warning("thrown while requesting HEAD %s", "http://user:secret@127.0.0.1:9/a")
    assert "thrown while requesting HEAD http://127.0.0.1:9/a" in caplog.text
    assert "secret" not in caplog.text


def test_a_host_that_does_not_answer_is_told_at_once(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:1")
    began = time.monotonic()
    text = refusal(WANTED)
    assert time.monotonic() - began < attempts.REACH_SECONDS
    assert "the connection to https://127.0.0.1:1 failed (127.0.0.1: Connection refused)" in text


def test_a_name_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()

    def wait(*_: object, **__: object) -> None:
        silent.wait(5)
        raise OSError("too late")

    monkeypatch.setattr(attempts, "REACH_SECONDS", 0.05)
    monkeypatch.setattr(attempts.socket, "create_connection", wait)
    with pytest.raises(attempts.UnreachableError, match=r"hub\.example: no answer in 0\.05 seconds"):
        attempts.check_reach("https://hub.example")
    silent.set()


def test_a_pinned_file_in_the_cache_needs_nobody(hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = replace(WANTED, revision=commit)
    path, _ = fetch_file(pinned)
    monkeypatch.setattr("zoo.weights.hub.check_reach", lambda address: pytest.fail("it was asked"))
    assert fetch_file(pinned) == (path, commit)
