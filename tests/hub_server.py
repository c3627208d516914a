"""A Hugging Face Hub for model repositories on loopback, made for tests (standard library only).

It speaks the part of the Hub's protocol by which the real ``huggingface_hub`` client reads and publishes models, and
misbehaves on request. Large files travel as LFS, not Xet. The repositories are plain folders, see ``hub_store.py``.

    >>> with HubServer(folder) as hub:
    ...     commit = hub.add("org/name", {"config.json": b"{}"})
    ...     hub.fail("GET .*/config.json", status=503, times=2)
    ...     huggingface_hub.hf_hub_download("org/name", "config.json", endpoint=hub.endpoint)
    ...     assert hub.count("HEAD .*/resolve/") == 1

``HF_ENDPOINT`` is read when ``huggingface_hub`` is imported: ``conftest.py`` sets it before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_store import HubError, Store, is_lfs, safe_path


@dataclass
class Fault:
    """Misbehaviour for requests whose ``"METHOD /path"`` contains a match of ``match``; its parts combine."""

    match: str
    times: int | None = 1  # how many requests to hit; None: all
    status: int | None = None  # answer this status instead of serving the request
    body: bytes | None = None  # answer this body instead of the real one
    headers: Mapping[str, str | None] = field(default_factory=dict)  # set or replace answer headers; None: leave out
    delay: float = 0.0  # seconds to wait before answering
    rate: float | None = None  # send the body at this many bytes per second
    truncate: int | None = None  # announce the whole body, send this many bytes, then hang up
    corrupt: bool = False  # flip one bit of the last byte: right length, wrong content
    ignore_range: bool = False  # answer 200 with the whole body to a Range request
    reset: bool = False  # hang up with a TCP reset (at once, or where ``truncate`` says)


class Request(NamedTuple):
    """One request; header names are lower case, the status is None if the connection was reset unanswered."""

    method: str
    path: str
    headers: dict[str, str]
    status: int | None


class HubServer:
    """The hub, and the CDN it redirects to for large files, on two loopback ports. A context manager.

    tokens: accepted tokens (None: any). readers: those of them that may not write. gated: repositories whose files
    need one of the given tokens. private: repositories hidden without a token.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.store, self.lock = Store(Path(root).resolve()), threading.Lock()
        self._servers = [_Server(self, is_cdn=False), _Server(self, is_cdn=True)]
        hub_port, cdn_port = (server.server_port for server in self._servers)
        self.endpoint, self.cdn = f"http://127.0.0.1:{hub_port}", f"http://localhost:{cdn_port}"  # two host names
        self.reset()

    def reset(self) -> None:
        """Heal everything, and forget all repositories and requests."""
        self.tokens: set[str] | None = None
        self.readers: set[str] = set()
        self.gated: dict[str, set[str]] = {}
        self.private: set[str] = set()
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.store.clear()

    def add(self, repo_id: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Make a revision of a repository hold these files and no others; returns its commit id."""
        return self.store.add(repo_id, files, revision)

    def __enter__(self) -> HubServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fail(self, match: str, **what: Any) -> None:
        """Add a fault; the keywords are the fields of `Fault`. ``hub.faults.clear()`` heals the server."""
        self.faults.append(Fault(match, **what))

    def count(self, match: str) -> int:
        """How many requests so far have a ``"METHOD /path"`` with a match of ``match``."""
        return sum(bool(re.search(match, f"{request.method} {request.path}")) for request in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer, is_cdn: bool) -> None:
        self.hub, self.is_cdn = hub, is_cdn
        super().__init__(("127.0.0.1", 0), _Handler)


_ROUTES: list[tuple[bool, re.Pattern[str], Callable[..., None]]] = []


def route(pattern: str, cdn: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a handler for ``"METHOD /path"``; {repo} is two path segments, {rev} one, {path} the rest."""
    pattern = pattern.replace("{repo}", "(?P<repo_id>[^/]+/[^/]+)").replace("{rev}", "(?P<revision>[^/]+)")
    compiled = re.compile(pattern.replace("{path}", "(?P<path>.+)"))

    def register(method: Callable[..., None]) -> Callable[..., None]:
        _ROUTES.append((cdn, compiled, method))
        return method

    return register


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Keep test output quiet; ``hub.requests`` is the log."""

    def do_GET(self) -> None:
        url, self.hub, self.body = urlsplit(self.path), self.server.hub, self._read_body()
        self.query, line = parse_qs(url.query), f"{self.command} {url.path}"
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.hub.lock:
            hits = (fault for fault in self.hub.faults if fault.times != 0 and re.search(fault.match, line))
            self.fault = next(hits, Fault(line))
            self.fault.times = self.fault.times and self.fault.times - 1
        time.sleep(self.fault.delay)
        try:
            self._serve(line)
        except HubError as error:
            self._json(error.json, error.status, error.headers)
        except OSError:
            self.close_connection = True  # the client hung up
        except Exception:
            self._json({"error": traceback.format_exc()}, 500)

    do_HEAD = do_POST = do_PUT = do_GET

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def _serve(self, line: str) -> None:
        if self.fault.reset and self.fault.truncate is None:
            self._record(None)
            return self._hang_up()
        if self.fault.status is not None:
            raise HubError(self.fault.status, "Injected fault")
        for cdn, pattern, method in _ROUTES:
            if cdn == self.server.is_cdn and (match := pattern.fullmatch(line)):
                return method(self, **{name: unquote(value) for name, value in match.groupdict().items() if value})
        raise HubError(404, f"No such route: {line}")

    def _record(self, status: int | None) -> None:
        """Log the request: before it is answered, so that a client that has its answer finds it in the log."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, urlsplit(self.path).path, headers, status))

    def _hang_up(self) -> None:
        self.close_connection = True
        if self.fault.reset:  # closing with no linger time sends RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        fault, out = self.fault, dict(headers or {})
        content = content if fault.body is None else fault.body
        total, wanted = len(content), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if fault.corrupt and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if wanted and status == 200 and not fault.ignore_range:
            start, stop = int(wanted[1]), min(total, int(wanted[2] or total) + 1)
            status, content = (206, content[start:stop]) if start < stop else (416, b"")
            out["Content-Range"] = f"bytes {start}-{stop - 1}/{total}" if content else f"bytes */{total}"
        self._record(status)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **out, **fault.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        sent = content[: fault.truncate] if self.command != "HEAD" else b""
        step = 1 << 16 if fault.rate is None else max(1, int(fault.rate / 10))
        for start in range(0, len(sent), step):
            self.wfile.write(sent[start : start + step])
            time.sleep(0 if fault.rate is None else step / fault.rate)
        if fault.truncate is not None:
            self._hang_up()

    def _allow(self, repo_id: str, write: bool = False) -> None:
        """Refuse what the request's token may not do; strangers are not told which repositories exist."""
        if self.hub.tokens is not None and self.token and self.token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        if write and self.hub.tokens is not None and not self.token:
            raise HubError(401, "Invalid username or password.")
        if write and self.token in self.hub.readers:
            raise HubError(403, "You don't have the rights to write here")
        hidden = repo_id in self.hub.private or not self.hub.store.exists(repo_id)
        if hidden and not write and not self.token:
            raise HubError(401, "Invalid username or password.", "RepoNotFound")

    @route("GET /api/models/{repo}(?:/revision/{rev})?")
    def model_info(self, repo_id: str, revision: str = "main") -> None:
        self._allow(repo_id)
        commit, files = self.hub.store.resolve(repo_id, revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in files]
        if "blobs" in self.query:
            found = [entry.as_json(path) for path, entry in files.items()]
            siblings = [{"rfilename": info["path"], "blobId": info["oid"], **info} for info in found]
        access = {"private": repo_id in self.hub.private, "gated": "manual" if repo_id in self.hub.gated else False}
        self._json({"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings, "tags": [], **access})

    @route("(?:GET|HEAD) (?P<cached>/api/resolve-cache/models)?/{repo}(?(cached)/|/resolve/){rev}/{path}")
    def resolve(self, repo_id: str, revision: str, path: str, cached: str = "") -> None:
        """Describe a file in headers and redirect: LFS files to the CDN, others to an address caches can keep."""
        self._allow(repo_id)
        if repo_id in self.hub.gated and self.token not in self.hub.gated[repo_id]:
            raise HubError(403 if self.token else 401, f"Access to model {repo_id} is restricted.", "GatedRepo")
        commit, files = self.hub.store.resolve(repo_id, revision)
        if (entry := files.get(path)) is None:
            raise HubError(404, "Entry not found", "EntryNotFound", commit)
        if cached:
            return self._send(entry.local.read_bytes(), 200, {"X-Repo-Commit": commit, "ETag": f'"{entry.etag}"'})
        headers = {"X-Repo-Commit": commit, "X-Linked-ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"}
        if entry.pointer_size is None:
            headers["Location"] = f"/api/resolve-cache/models/{repo_id}/{commit}/{quote(path)}"
            return self._send(b"Temporary Redirect", 307, headers)
        headers["X-Linked-Size"] = str(entry.size)
        headers["Location"] = f"{self.hub.cdn}/{repo_id}/{commit}/{quote(path)}"
        self._send(b"Found", 302, headers)

    @route("(?:GET|HEAD) /{repo}/{rev}/{path}", cdn=True)
    def cdn_download(self, repo_id: str, revision: str, path: str) -> None:
        """The CDN asks for no token: the real one's addresses are secrets."""
        entry = self.hub.store.resolve(repo_id, revision)[1][path]
        self._send(entry.local.read_bytes(), 200, {"ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"})

    @route("POST /api/repos/create")
    def create_repo(self) -> None:
        asked = json.loads(self.body)
        repo_id = safe_path(f"{asked.get('organization') or 'user'}/{asked['name']}")
        self._allow(repo_id, write=True)
        url = f"{self.hub.endpoint}/{repo_id}"
        if not self.hub.store.create(repo_id):
            raise HubError(409, "You already created this model repo", url=url)
        if asked.get("visibility") == "private":
            self.hub.private.add(repo_id)
        self._json({"url": url, "name": repo_id, "id": repo_id})

    @route("POST /api/models/{repo}/branch/{rev}")
    def create_branch(self, repo_id: str, revision: str) -> None:
        self._allow(repo_id, write=True)
        self.hub.store.branch(repo_id, revision)
        self._json({})

    @route("POST /api/validate-yaml")
    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    @route("POST /api/models/{repo}/preupload/{rev}")
    def preupload(self, repo_id: str, revision: str) -> None:
        """Tell for each file whether it goes into the commit or through LFS first, and what is there already."""
        self._allow(repo_id, write=True)
        present, asked = self.hub.store.resolve(repo_id, revision)[1], json.loads(self.body)["files"]
        for file in asked:
            file["uploadMode"] = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
            file["oid"] = present[file["path"]].etag if file["path"] in present else None
            file["shouldIgnore"] = False
        self._json({"files": asked})

    @route(r"POST /{repo}\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo_id: str) -> None:
        self._allow(repo_id, write=True)
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.store.uploads:
                item["actions"] = {"upload": {"href": f"{self.hub.cdn}/upload/{item['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    @route("PUT /upload/(?P<oid>[0-9a-f]{64})", cdn=True)
    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "The content does not have the announced SHA-256")
        self.hub.store.uploads[oid] = self.body
        self._send(b"")

    @route("POST /api/models/{repo}/commit/{rev}")
    def commit(self, repo_id: str, revision: str) -> None:
        self._allow(repo_id, write=True)
        header, *operations = map(json.loads, self.body.splitlines())
        oid = self.hub.store.commit(repo_id, revision, header["value"].get("parentCommit"), operations)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}"})
