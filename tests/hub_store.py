"""Model repositories as plain folders: the storage behind ``hub_server.py`` (standard library only).

``Store.add`` fills them; a "/" in a revision name is written "%2F"::

    <root>/<org>/<name>/<branch or tag>/<files>     its commit id is a digest of the contents
    <root>/<org>/<name>/<40 hex digits>/<files>     an older commit, kept so that it stays downloadable
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

LFS_SUFFIXES = (".bin", ".ckpt", ".h5", ".npz", ".onnx", ".pkl", ".pt", ".pth", ".safetensors", ".tar", ".zip")
LFS_MIN_SIZE = 10 * 1024 * 1024  # larger files are LFS whatever their suffix, as on the Hub
COMMIT_ID = re.compile(r"[0-9a-f]{40}")


class HubError(Exception):
    """An error answer; ``code`` is the ``X-Error-Code`` by which the client picks its exception class."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "", **extra: str) -> None:
        super().__init__(message)
        self.status, self.json = status, {"error": message, **extra}
        headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
        self.headers = {name: value for name, value in headers.items() if value}


class FileEntry(NamedTuple):
    """What the Hub tells about a file of a commit; ``oid`` is the git id of the file or of its LFS pointer."""

    local: Path
    size: int
    oid: str
    sha256: str
    pointer_size: int | None  # None: a regular git file

    @property
    def etag(self) -> str:
        return self.oid if self.pointer_size is None else self.sha256

    def as_json(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "sha256": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        info = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        return info if self.pointer_size is None else info | {"lfs": lfs}


def is_lfs(path: str, size: int) -> bool:
    return size > LFS_MIN_SIZE or path.lower().endswith(LFS_SUFFIXES)


def describe(local: Path) -> FileEntry:
    blob = local.read_bytes()
    size, sha256, pointer_size = len(blob), hashlib.sha256(blob).hexdigest(), None
    if is_lfs(local.name, size):
        blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        pointer_size = len(blob)
    oid = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
    return FileEntry(local, size, oid, sha256, pointer_size)


def safe_path(path: str) -> str:
    """``path``, if it stays below the folder it is joined to."""
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise HubError(400, f"Invalid path: {path!r}")
    return path


class Store:
    """The repositories below one folder; every method may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root, self.lock = root, threading.RLock()
        self.uploads: dict[str, bytes] = {}  # LFS objects by SHA-256, that a commit may name

    def add(self, repo_id: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Make a revision hold these files and no others; returns its commit id."""
        with self.lock:
            folder = self.root / safe_path(repo_id) / quote(revision, safe="")
            shutil.rmtree(folder, ignore_errors=True)
            for name, content in files.items():
                (folder / safe_path(name)).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            return self.resolve(repo_id, revision)[0]

    def clear(self) -> None:
        with self.lock:
            self.uploads.clear()
            for folder in self.root.iterdir():
                shutil.rmtree(folder)

    def create(self, repo_id: str) -> bool:
        """Create a repository with the ``.gitattributes`` the Hub starts one with; False if it exists."""
        with self.lock:
            if self.exists(repo_id):
                return False
            rules = [f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES]
            self.add(repo_id, {".gitattributes": "".join(rules).encode()})
            return True

    def branch(self, repo_id: str, name: str) -> None:
        """Make a branch that begins where `main` is."""
        with self.lock:
            folders = self.revisions(repo_id)
            shutil.copytree(folders["main"], folders["main"].with_name(quote(name, safe="")))

    def exists(self, repo_id: str) -> bool:
        return (self.root / safe_path(repo_id)).is_dir()

    def revisions(self, repo_id: str) -> dict[str, Path]:
        if not self.exists(repo_id):
            raise HubError(404, "Repository not found", "RepoNotFound")
        folders = (self.root / repo_id).iterdir()
        return {unquote(path.name): path for path in sorted(folders) if path.is_dir()}

    def resolve(self, repo_id: str, revision: str) -> tuple[str, dict[str, FileEntry]]:
        """Commit id and files of a branch, tag or full commit id."""
        with self.lock:
            revisions, pinned = self.revisions(repo_id), COMMIT_ID.fullmatch(revision)
            if folder := revisions.get(revision):
                found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                files = {path.relative_to(folder).as_posix(): describe(path) for path in found}
                listing = [repo_id, *(f"{name} {entry.sha256}" for name, entry in sorted(files.items()))]
                return revision if pinned else hashlib.sha1("\n".join(listing).encode()).hexdigest(), files
            for name in revisions if pinned else ():
                if not COMMIT_ID.fullmatch(name) and (head := self.resolve(repo_id, name))[0] == revision:
                    return head
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, repo_id: str, branch: str, parent: str | None, operations: list[dict[str, Any]]) -> str:
        """Apply one commit to a branch and return its id; nothing changes if an operation is invalid."""
        with self.lock:
            head, files = self.resolve(repo_id, branch)
            if COMMIT_ID.fullmatch(branch) or (parent and not head.startswith(parent)):
                raise HubError(412, f"{branch} is at {head}, not at {parent}")
            writes: dict[str, bytes | None] = {}
            for operation in operations:
                kind, value = operation["key"], operation["value"]
                path = safe_path(value["path"].rstrip("/"))
                if kind == "file":
                    writes[path] = base64.b64decode(value["content"])
                elif kind == "lfsFile":
                    if value["oid"] not in self.uploads:
                        raise HubError(400, f"LFS object {value['oid']} of {path} was not uploaded")
                    writes[path] = self.uploads[value["oid"]]
                elif kind in ("deletedFile", "deletedFolder"):
                    writes |= {name: None for name in files if PurePosixPath(name).is_relative_to(path)}
                else:
                    raise HubError(400, f"Unknown commit operation {kind!r}")
            live = self.revisions(repo_id)[branch]
            shutil.copytree(live, live.with_name(head), dirs_exist_ok=True)
            for path, content in writes.items():
                (live / path).parent.mkdir(parents=True, exist_ok=True)
                (live / path).unlink() if content is None else (live / path).write_bytes(content)
            return self.resolve(repo_id, branch)[0]
