import pytest

from zoo.files.address import hide_password, is_private


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co",
        "HTTPS://example.org/x",
        "https://name:word@example.org",
        "http://localhost:8080/a",
        "http://LOCALHOST",
        "http://127.0.0.1",
        "http://127.9.9.9:1",
        "http://[::1]:80",
        "http://[::ffff:127.0.0.1]",
        "http://name:word@127.0.0.1:9",
    ],
)
def test_nobody_listens(url):
    assert is_private(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://127.evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.localhost.example",
        "http://127.0.0.1@evil.example",
        "http://localhost:80@evil.example/",
        "http://evil.example#@127.0.0.1",
        "http://evil.example?@127.0.0.1",
        "http://evil.example/@127.0.0.1",
        "http://evil.example\\@127.0.0.1",
        "http://127.0.0.1 .evil.example",
        "http://[::1].evil.example",
        "http://[::ffff:8.8.8.8]",
        "http://0.0.0.0",
        "http://[::]",
        "http://10.0.0.1",
        "http://2130706433",
        "http://0177.0.0.1",
        "http://0x7f.0.0.1",
        "http://127.1",
        "http://",
        "http://[::1",
        "ftp://127.0.0.1",
        "127.0.0.1",
        "",
    ],
)
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
