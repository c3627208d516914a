"""Decoded images, kept while a run lasts, so that each is decoded once: in memory or on disk, within a limit.

Each image is a file of raw RGB bytes in a folder of the run, so that all processes that load share what one of them
has decoded; "in memory" means a file system that lies in memory. The limit is cut into shares, each an empty file:
whoever removes one may write so many bytes, and no two processes can remove the same. So the limit holds for any
number of them without a lock; a part of a share may stay unused in each.
"""

import contextlib
import os
import secrets
import shutil
import socket
import struct
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

from PIL import Image

from zoo.errors import InputError
from zoo.files import CLOCK_SECONDS, cache_folder, find_start

Where: TypeAlias = Literal["memory", "disk"]

MEMORY_FOLDER = Path("/dev/shm")  # of Linux
SPARE = 2**30  # bytes to be left there, through which processes hand over batches
PREFIX = "zoo-images-"
SHARES = 256  # most parts of a limit
BLOCK = 4096  # bytes: file systems give whole blocks
HEAD = struct.Struct("<II")  # width and height in pixels; then come the pixels

_buffers = threading.local()  # .bytes: what a thread reads into


class ImageStore:
    """Keeps decoded images until it is closed or its process ends; what a killed one left, the next one removes.

    It may be handed to other processes, by fork or by pickle: they share images and limit. On a machine without a
    large file system in memory, images "in memory" are not shared: each process finds only what it has put in itself.

    Args:
        where: `memory`, or `disk`, which is this package's cache folder.
        limit_bytes: Most that all processes keep together; at most half of what is free is used.
        folder: That of another store on this machine, to share its images and its limit, or one that does not exist
            yet. None: a new one with a name of its own.
        log: Called with a line of text whenever less can be kept than was asked for.

    Attributes:
        folder: Where the images are, removed at the end by the store that made it.
        hits: How many images this process has found.
        kept: How many it has put in.
        bytes: What these take.

    Raises:
        InputError: If a value is out of range, or the folder cannot be made.
    """

    def __init__(
        self, where: Where, limit_bytes: int, folder: Path | None = None, *, log: Callable[[str], None] | None = None
    ) -> None:
        if where not in get_args(Where):
            raise InputError(f"where is {where!r}; expected memory or disk.")
        if limit_bytes < 1:
            raise InputError(f"limit_bytes is {limit_bytes!r}; expected 1 or more.")
        base, is_shared = (folder.parent, True) if folder else _choose_base(where, limit_bytes)
        self.folder = folder or base / _name_folder()
        self.hits = self.kept = self.bytes = 0
        self._say, self._pid, self._stopped = log, os.getpid(), False
        self._own: dict[str, bytes] | None = None if is_shared else {}
        if not is_shared:
            self._tell("each process caches decoded images for itself: no in-memory file system has enough space")
        try:
            self._open(where, limit_bytes)
        except OSError as error:
            raise InputError(
                f"cannot create the image cache folder {self.folder}: {error.strerror}. Fix that, or use "
                "image_cache=off."
            ) from error
        self._budget = _Budget(self.folder / "shares")

    def get(self, key: str) -> Image.Image | None:
        """Return the image that was put in under this key, RGB, or None."""
        image = _read_image(self._path(key)) if self._own is None else _to_image(self._own.get(key, b""))
        self.hits += image is not None
        return image

    def put(self, key: str, image: Image.Image) -> None:
        """Keep an RGB image, if it fits into what is left of the limit.

        Args:
            key: A file's name, without a suffix.
            image: The same whenever something is put in under this key.
        """
        size = _round_up(HEAD.size + 3 * image.width * image.height)
        known = self._path(key).exists() if self._own is None else key in self._own
        if self._stopped or known or image.mode != "RGB" or not self._budget.reserve(size):
            return
        try:
            self._write(key, HEAD.pack(*image.size) + image.tobytes())
        except OSError as error:
            self._budget.give_back(size)
            self._stop(error)
            return
        self.kept += 1
        self.bytes += size

    def total(self) -> tuple[int, int]:
        """Return how many images all processes keep, and how many bytes they take."""
        if self._own is not None:
            return self.kept, self.bytes
        sizes = [_round_up(path.stat().st_size) for path in self.folder.glob("*.rgb")]
        return len(sizes), sum(sizes)

    def close(self) -> None:
        """Forget everything; the process that made the folder removes it, and others find nothing from then on."""
        if not self._stopped and (self.folder / "stopped").exists():
            self._tell(
                "a data-loading process had no space left in the image cache; the remaining images were decoded "
                "every epoch"
            )
        self._stopped = True
        if self._own is not None:
            self._own.clear()
        if self._remove is not None:
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: not what is this one's alone."""
        own: dict[str, bytes] | None = None if self._own is None else {}
        return self.__dict__ | {"_say": None, "_remove": None, "_own": own, "hits": 0, "kept": 0, "bytes": 0}

    def _open(self, where: Where, limit_bytes: int) -> None:
        base = self.folder.parent
        base.mkdir(parents=True, exist_ok=True)
        _remove_left(base)
        most = _free_bytes(base, where) // 2
        is_new = _make_folder(self.folder, min(limit_bytes, most))
        self._remove = weakref.finalize(self, _remove_folder, self.folder, self._pid) if is_new else None
        if is_new and most < limit_bytes:
            self._tell(f"image cache limited to {most / 1e9:.1f} GB, half of the free space")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.rgb"

    def _write(self, key: str, content: bytes) -> None:
        if self._own is not None:
            self._own[key] = content
            return
        draft = self.folder / f"{secrets.token_hex(8)}.tmp"
        try:
            draft.write_bytes(content)
            draft.replace(self._path(key))
        finally:
            draft.unlink(missing_ok=True)

    def _stop(self, error: OSError) -> None:
        """Keep no more: a disk that is full, or the folder is gone."""
        self._stopped = True
        if os.getpid() == self._pid:
            self._tell(f"the image cache is full ({error.strerror}); the remaining images are decoded every epoch")
        with contextlib.suppress(OSError):
            (self.folder / "stopped").touch()  # for the process that says so

    def _tell(self, line: str) -> None:
        if self._say is not None and os.getpid() == self._pid:
            self._say(line)


class _Budget:
    """What this process may still write, taken share by share from what all may.

    Args:
        folder: Has an empty file for each share that is left; its name ends with the bytes it stands for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._start()

    def reserve(self, size: int) -> bool:
        """Take so many bytes; say whether that was possible."""
        with self._lock:
            if self._pid != os.getpid():
                self._start()  # after a fork: what was left is the other's
            while self._left < size and self._names:
                self._left += self._take(self._names.pop())
            if self._left < size:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Return bytes that were not written."""
        with self._lock:
            self._left += size

    def __getstate__(self) -> Path:
        return self._folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]

    def _start(self) -> None:
        self._pid, self._left = os.getpid(), 0
        self._names = os.listdir(self._folder) if self._folder.is_dir() else []

    def _take(self, name: str) -> int:
        try:
            os.unlink(self._folder / name)
        except FileNotFoundError:  # another process was faster
            return 0
        return int(name.rpartition("-")[2])


def sweep_stores() -> None:
    """Remove what killed runs have left in memory and on disk; cheap, so that every run can begin with it."""
    for base in (MEMORY_FOLDER, cache_folder() / "decoded"):
        _remove_left(base)


def _choose_base(where: Where, limit_bytes: int) -> tuple[Path, bool]:
    """Return where the folder is to be made, and whether images lie in there, or in the process itself."""
    if where == "disk":
        return cache_folder() / "decoded", True
    if os.access(MEMORY_FOLDER, os.W_OK) and shutil.disk_usage(MEMORY_FOLDER).free >= limit_bytes + SPARE:
        return MEMORY_FOLDER, True
    return Path(tempfile.gettempdir()), False


def _name_folder() -> str:
    """Return a name that tells which process of which machine the folder belongs to."""
    return f"{PREFIX}{os.getpid()}-{find_start(os.getpid()):.0f}-{secrets.token_hex(4)}-{socket.gethostname()}"


def _remove_left(base: Path) -> None:
    """Remove folders of processes of this machine that live no more; containers see only their own processes."""
    for folder in base.glob(f"{PREFIX}*"):
        parts = folder.name.removeprefix(PREFIX).split("-", 3)
        is_ours = len(parts) == 4 and parts[3] == socket.gethostname() and parts[0].isdigit() and parts[1].isdigit()
        if is_ours and abs(find_start(int(parts[0])) - int(parts[1])) > CLOCK_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _free_bytes(base: Path, where: Where) -> int:
    import psutil

    on_disk = shutil.disk_usage(base).free
    if where == "disk":
        return on_disk
    memory = int(psutil.virtual_memory().available)
    return min(memory, on_disk) if base == MEMORY_FOLDER else memory


def _make_folder(folder: Path, limit_bytes: int) -> bool:
    """Make the folder and its shares, all at once; say whether it was not there before."""
    if folder.is_dir():
        return False
    draft = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700)
    (draft / "shares").mkdir()
    count = max(1, min(SHARES, limit_bytes // BLOCK))
    for number in range(count):
        (draft / "shares" / f"{number}-{limit_bytes // count}").touch()
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)
        if not folder.is_dir():
            raise
        return False
    return True


def _remove_folder(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)


def _read_image(path: Path) -> Image.Image | None:
    """Read an image by way of a buffer that the thread keeps: a new one each time takes longer than reading."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            buffer: bytearray = getattr(_buffers, "bytes", bytearray())
            if len(buffer) < size:
                buffer = _buffers.bytes = bytearray(size)
            content = memoryview(buffer)[:size]
            return _to_image(content) if file.readinto(content) == size else None
    except OSError:
        return None


def _to_image(content: bytes | memoryview) -> Image.Image | None:
    if len(content) < HEAD.size:
        return None
    width, height = HEAD.unpack_from(content)
    if len(content) != HEAD.size + 3 * width * height:
        return None
    return Image.frombytes("RGB", (width, height), memoryview(content)[HEAD.size :])


def _round_up(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
