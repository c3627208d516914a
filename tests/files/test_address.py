import pytest

from zoo.files.address import hide_password, is_private

LOCAL = [
    *("localhost:8080/a", "LOCALHOST", "127.0.0.1", "127.9.9.9:1", "[::1]:80", "[::ffff:127.0.0.1]"),
    "name:word@127.0.0.1:9",
]
OTHERS = [
    *("example.org", "127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost.example"),
    *("127.0.0.1@evil.example", "localhost:80@evil.example/", "evil.example#@127.0.0.1", "evil.example?@127.0.0.1"),
    *("evil.example/@127.0.0.1", "evil.example\\@127.0.0.1", "[::1].evil.example", "[::ffff:8.8.8.8]", "0.0.0.0"),
    *("[::]", "10.0.0.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "127.1", "[::1", "127.0.0.1 .evil.example", ""),
]


@pytest.mark.parametrize("url", ["https://huggingface.co", "HTTPS://example.org/x", "https://name:word@example.org"])
def test_nobody_reads_what_is_encrypted(url):
    assert is_private(url)


@pytest.mark.parametrize("host", LOCAL)
def test_nobody_listens(host):
    assert is_private(f"http://{host}")


@pytest.mark.parametrize("url", [*(f"http://{host}" for host in OTHERS), "ftp://127.0.0.1", "127.0.0.1", ""])
def test_somebody_may_listen(url):
    assert not is_private(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEAD http://user:pw@127.0.0.1:9/a", "HEAD http://127.0.0.1:9/a"),
        ("http://a@b@host/c@d", "http://host/c@d"),
        ("https://host/x//y@z", "https://host/x//y@z"),
        ("user:pw@host", "user:pw@host"),
    ],
)
def test_passwords_are_hidden(text, expected):
    assert hide_password(text) == expected
