"""A web server on loopback that answers as it is told, for downloads that go well and that do not."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """What is sent: a status, headers, and a body, which may be announced longer than it is, or never come."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = -1  # bytes; -1: as many as there are, None: nothing is said
    hangs: bool = False
    delay: float = 0.0  # seconds before it is sent


class Loopback:
    """The server; a context manager. `answers` is path to `Answer`; other paths are 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a client has gone away."""


def _handler_of(site: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            answer = site.answers.get(self.path, Answer(b"nothing here", 404))
            if answer.hangs and answer.announced is None:
                site.released.wait(10)
                return
            site.released.wait(answer.delay)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.announced is not None:
                length = len(answer.body) if answer.announced == -1 else answer.announced
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(answer.body)
            if answer.hangs:
                self.wfile.flush()
                site.released.wait(10)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
