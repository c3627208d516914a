import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback import Answer, Loopback
from zoo.errors import WeightsError
from zoo.files import download as web_file
from zoo.files.download import fetch_url, has_content, probe_url

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several micro-batches
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site() -> Iterator[Loopback]:
    with Loopback() as site:
        site.answers["/a.pth"] = Answer(CONTENT)
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "a.pth"


def refusal(url: str, target: Path, **options: int) -> str:
    with pytest.raises(WeightsError) as caught:
        fetch_url(url, target, sha256=SHA256, **options)  # type: ignore[arg-type]
    assert not target.exists()
    assert not target.parent.exists() or not any(target.parent.iterdir())  # no draft is left
    return str(caught.value)


def test_a_file_arrives_whole_and_is_fetched_once(site: Loopback, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found = fetch_url(site.url("/a.pth"), target, sha256=SHA256, on_progress=lambda *news: seen.append(news))
    assert found == target
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert fetch_url(site.url("/a.pth"), target, sha256=SHA256) == target
    assert site.requests == ["/a.pth"]
    assert [path.name for path in target.parent.iterdir()] == ["a.pth"]


def test_a_damaged_file_in_the_cache_is_replaced(site: Loopback, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1])
    assert not has_content(target, SHA256)
    fetch_url(site.url("/a.pth"), target, sha256=SHA256)
    assert has_content(target, SHA256)


def test_a_length_need_not_be_told(site: Loopback, target: Path) -> None:
    site.answers["/a.pth"] = Answer(CONTENT, announced=None)
    seen: list[int | None] = []
    fetch_url(site.url("/a.pth"), target, sha256=SHA256, on_progress=lambda done, total: seen.append(total))
    assert set(seen) == {None}
    assert has_content(target, SHA256)


def test_a_redirect_is_followed(site: Loopback, target: Path) -> None:
    site.answers["/old"] = Answer(status=302, headers={"Location": "/a.pth"})
    fetch_url(site.url("/old"), target, sha256=SHA256)
    assert site.requests == ["/old", "/a.pth"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(b"no", 403), "it answered 403 (Forbidden)"),
        (Answer(b"no", 404), "it answered 404 (Not Found)"),
        (Answer(b"no", 503), "it answered 503 (Service Unavailable)"),
        (Answer(CONTENT, announced=6_000_000), "the download stopped after 5,120,000 of 6,000,000 bytes"),
        (Answer(b"<html>", 200), "it sent a different file: its SHA-256 is b7d082ee12e9"),
        (Answer(status=302, headers={"Location": "http://example.org/a"}), "it redirects to http://example.org/a, "),
        (Answer(status=302, headers={"Location": "ftp://example.org/a"}), "it redirects to ftp://example.org/a, "),
        (Answer(status=302, headers={"Location": "/a.pth"}), "it answered 302 (The HTTP server returned a redirect"),
    ],
)
def test_what_comes_instead_is_told(site: Loopback, target: Path, answer: Answer, text: str) -> None:
    site.answers["/a.pth"] = answer
    assert refusal(site.url("/a.pth"), target).startswith(text)


@pytest.mark.parametrize("announced", [-1, None])
def test_a_file_that_is_too_long_is_not_taken(site: Loopback, target: Path, announced: int | None) -> None:
    site.answers["/a.pth"] = Answer(CONTENT, announced=announced)
    text = refusal(site.url("/a.pth"), target, limit_bytes=3_000_000)
    assert "bytes, more than the 3,000,000 allowed" in text


@pytest.mark.parametrize("announced", [100, None])
def test_silence_ends_it(site: Loopback, target: Path, announced: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_file, "SILENCE_SECONDS", 0.2)
    site.answers["/a.pth"] = Answer(b"ab", announced=announced, hangs=True)
    assert refusal(site.url("/a.pth"), target) == "no answer for 0.2 seconds"


def test_a_trickle_ends_in_the_end(site: Loopback, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_file, "LIMIT_SECONDS", 0.0)
    assert refusal(site.url("/a.pth"), target).endswith("bytes took more than 0 seconds")


def test_a_host_that_is_dead_or_unknown(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/a.pth", target) == "the connection was refused"

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert refusal("https://nowhere.invalid/a.pth", target) == "unknown host, or no network"


def test_a_server_that_speaks_no_tls_is_not_trusted(site: Loopback, target: Path) -> None:
    url = site.url("/a.pth").replace("http:", "https:")
    assert refusal(url, target).startswith("the connection is not secure (")


@pytest.mark.parametrize("url", ["http://example.org/a.pth", "file:///etc/hosts", "ftp://example.org/a", "a.pth"])
def test_only_https_is_asked(url: str, target: Path) -> None:
    assert refusal(url, target) == f"{url}, which is not https"


def test_a_folder_that_cannot_be_made(site: Loopback, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"^cannot create the folder .*file: "):
        fetch_url(site.url("/a.pth"), tmp_path / "file" / "a.pth", sha256=SHA256)


def test_an_address_is_asked_without_a_download(site: Loopback) -> None:
    assert probe_url(site.url("/a.pth")) == "it answered 200, 5,120,000 bytes"
    assert probe_url(site.url("/absent")) == "it answered 404 (Not Found)"
    assert probe_url("http://mirror.example/a.pth") == "http://mirror.example/a.pth, which is not https"
    assert probe_url("http://127.0.0.1:9/a.pth") == "the connection was refused"
