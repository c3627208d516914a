"""Facts about pretrained weights: where they are published, the file that was found, what a model took of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from zoo._text import clean, shorten
from zoo.errors import InputError
from zoo.files import Slot, read_in_parts, read_shapes, read_slots
from zoo.weights.hub import is_plain_path

if TYPE_CHECKING:
    from torch import Tensor

FILENAME = "model.safetensors"
REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>\S+))?", re.ASCII)
IMAGENET_CAVEAT = (
    "the images of ImageNet were released for non-commercial research; timm's author recommends legal advice before "
    "commercial use of weights trained on them"
)


def _caveat_of(source: str) -> str:
    return IMAGENET_CAVEAT if "ImageNet" in source else ""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of a model.

    Attributes:
        repo: Repository on the Hub, `org/name`.
        revision: Commit, 40 hexadecimal digits; None if none is known, then the head of `main` is taken.
        sha256: Of the file, 64 hexadecimal digits; None if it is not known.
        filename: The file in the repository.
        licence: SPDX identifier, lower case.
        source: Who trained them, on what.
        top1: Published top-1 accuracy on the validation set of ImageNet-1k, per cent.
        mean_ap: Published mAP@[.5:.95] on COCO 2017 val, per cent.
        size: Of the file, in bytes; None if it is not known to the byte.
        megabytes: Of the file, as the repository's page shows it: 10^6 bytes, rounded; None if it was not seen.
        notice: Lines that tell the terms, shown before the first use in a process.
    """

    repo: str
    revision: str | None
    sha256: str | None
    filename: str = FILENAME
    licence: str
    source: str = ""
    top1: float | None = None
    mean_ap: float | None = None
    size: int | None = None
    megabytes: float | None = None
    notice: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (match := REPO.fullmatch(self.repo)) or match["revision"]:
            raise InputError(f"weights: repo is {self.repo!r}; expected 'org/name'.")
        for name, digits in {"revision": 40, "sha256": 64}.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise InputError(f"weights of {self.repo}: {name} is {value!r}; expected {digits} hexadecimal digits.")
        if not self.filename.endswith(".safetensors") or not is_plain_path(self.filename):
            raise InputError(f"weights of {self.repo}: filename is {self.filename!r}; expected a .safetensors file.")

    @property
    def pinned(self) -> bool:
        """Whether both the commit and the SHA-256 are fixed."""
        return self.revision is not None and self.sha256 is not None

    @property
    def caveat(self) -> str:
        """What is to be known beside the licence; empty if there is nothing."""
        return _caveat_of(self.source)

    def describe(self) -> dict[str, Any]:
        """Return them as plain values."""
        return vars(self) | {"notice": list(self.notice), "pinned": self.pinned, "caveat": self.caveat}


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A file of weights that an installed Python package carries; the package is never imported.

    Attributes:
        distribution: Name of the package, as pip knows it.
        path: The file, from the folder that packages are installed into.
        extra: Extra of this package that installs it.
    """

    distribution: str
    path: str
    extra: str

    def __post_init__(self) -> None:
        if not is_plain_path(self.path):
            raise InputError(f"weights of {self.distribution}: path is {self.path!r}; expected a plain relative path.")

    def find(self) -> Path | None:
        """Return the file; None if the package is not installed, or lacks it."""
        try:
            path = Path(str(distribution(self.distribution).locate_file(self.path)))
        except PackageNotFoundError:
            return None
        return path if path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class FileWeights:
    """Published weights that are one file, known by its SHA-256, wherever it is found.

    Attributes:
        filename: Name of the file.
        sha256: Of the file, 64 hexadecimal digits.
        package: A Python package that carries the file, looked at first; None if there is none.
        repo_setting: Setting in `zoo.config` that names a Hub repository of the user's own, asked next; None if there
            is none.
        mirror: A public Hub repository with the same network's weights as safetensors, asked next; None if there is
            none.
        locations: Addresses of the publisher, asked last, the most likely one first.
        licence: SPDX identifier, or one that begins with `licenseref-`; lower case.
        notice: Lines that tell the terms, shown before the first use in a process.
        source: Who trained them, on what.
        top1: Published top-1 accuracy on the validation set of ImageNet-1k, per cent.
        mean_ap: Published mAP@[.5:.95] on COCO 2017 val, per cent.
    """

    filename: str
    sha256: str
    package: PackageFile | None = None
    repo_setting: str | None = None
    mirror: Weights | None = None
    locations: tuple[str, ...] = ()
    licence: str
    notice: tuple[str, ...] = ()
    source: str = ""
    top1: float | None = None
    mean_ap: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise InputError(f"weights {self.filename}: sha256 is {self.sha256!r}; expected 64 hexadecimal digits.")

    @property
    def pinned(self) -> bool:
        """Whether the content of every place is fixed."""
        return self.mirror is None or self.mirror.pinned

    @property
    def caveat(self) -> str:
        """What is to be known beside the licence and `notice`; empty if there is nothing."""
        return _caveat_of(self.source)

    def describe(self) -> dict[str, Any]:
        """Return them as plain values."""
        lists = {"locations": list(self.locations), "notice": list(self.notice)}
        package = self.package and self.package.distribution
        mirror = self.mirror and self.mirror.describe()
        return vars(self) | lists | {"package": package, "mirror": mirror, "pinned": self.pinned}


class ConvertedCheckpoint(NamedTuple):
    """What a file of another program holds.

    Attributes:
        tensors: By name.
        config: What it says of the model, as a `config.json` would.
        notes: What a reader of a report has to know of how it was read.
    """

    tensors: "dict[str, Tensor]"
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


ReadForeign: TypeAlias = Callable[[Path], ConvertedCheckpoint]


@dataclass(frozen=True)
class ResolvedWeights:
    """A safetensors file on this machine, and what is known of it.

    Attributes:
        path: The file.
        config: Content of the `config.json` that belongs to it, unchecked except that it is an object; None if there
            is none. Not fetched for weights that are known beforehand.
        origin: Where it came from: a path, or the address of the repository.
        revision: Commit it came from, 40 hexadecimal digits; None for local files.
        sha256: Of its content, 64 hexadecimal digits.
        licence: SPDX identifier, lower case, as recorded or as stated by `config`; None if nothing is stated.
        pinned: Whether commit and SHA-256 were fixed beforehand, and it has them.
        foreign: Its tensors, if it is a file of another program; None if it is a safetensors file.
        notes: What is to be known of how it was read.
    """

    path: Path
    config: dict[str, Any] | None
    origin: str
    revision: str | None
    sha256: str
    licence: str | None
    pinned: bool
    foreign: "Mapping[str, Tensor] | None" = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()

    def parts(self) -> "Iterator[Mapping[str, Tensor]]":
        """Yield the content by name, on the CPU; of a large safetensors file a part at a time."""
        return read_in_parts(self.path) if self.foreign is None else iter([self.foreign])

    def slots(self) -> dict[str, Slot]:
        """Return shapes and types by name; of a safetensors file only the header is read."""
        if self.foreign is None:
            return read_slots(self.path)
        return {name: Slot(tuple(tensor.shape), tensor.dtype) for name, tensor in self.foreign.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes by name; of a safetensors file only the header is read."""
        if self.foreign is None:
            return read_shapes(self.path)
        return {name: tuple(tensor.shape) for name, tensor in self.foreign.items()}


@dataclass(frozen=True)
class LoadReport:
    """What a model took from a file.

    Attributes:
        origin: As in `ResolvedWeights`; so are `sha256`, `revision`, `licence` and `pinned`.
        loaded: Names of the tensors that now hold the file's values.
        reinitialised: Names of the tensors of the head that were left as newly made.
        unused: Names of the tensors of the file's head that were not taken.
        spare: Names of the tensors that the file lacks and no output depends on; they are as newly made.
        notes: As in `ResolvedWeights`.
    """

    origin: str
    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    unused: tuple[str, ...]
    sha256: str | None
    revision: str | None
    licence: str | None
    pinned: bool
    spare: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" at {self.revision[:12]}" if self.revision else ""
        digest = f", sha256 {self.sha256[:12]}" if self.sha256 else ""
        state = "pinned" if self.pinned else "not pinned"
        lines = [
            f"{len(self.loaded)} tensors from {self.origin}{where}{digest}, {state}",
            f"licence: {self.licence or 'not stated'}",
        ]
        lines += [f"newly initialized: {', '.join(self.reinitialised)}"] if self.reinitialised else []
        lines += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        lines += (
            [f"missing in the file but not needed: {shorten(self.spare)} ({len(self.spare)})"] if self.spare else []
        )
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(map(clean, lines))
