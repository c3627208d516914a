"""Pretrained weights: where they are, whether they are what they should be, and what of them a model took.

Safetensors files are read; files of other programs only for models that bring a reader of them, which treats them as
data. Weights that are known beforehand have a fixed SHA-256, and a file with other content is refused; of any other
repository the Hub's own digest is held against the content.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from zoo._model import ask
from zoo._text import clean
from zoo.errors import InputError, WeightsContentError, WeightsError, WeightsStorageError
from zoo.files import Slot, check_checksum, digest_file, read_in_parts, read_object, read_shapes, read_slots, to_path
from zoo.weights.hub import HubFile, fetch_file, fetch_if_there, get_endpoint, is_plain_path
from zoo.weights.local_file import find_file, names_pickle

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "config.json"
_FILENAME = "model.safetensors"
_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>\S+))?", re.ASCII)
IMAGENET_CAVEAT = (
    "the pictures of ImageNet were released for non-commercial research; timm's author advises to ask a lawyer before "
    "commercial use of weights trained on them"
)
_COMMERCIAL = {
    "0bsd", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc-by-3.0", "cc-by-4.0",
    "cc0-1.0", "isc", "mit", "mit-0", "unlicense", "zlib",
}  # fmt: skip


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
        top1: Top-1 accuracy on the validation set of ImageNet-1k, per cent.
        size: Of the file, in bytes; None if it is not known to the byte.
        megabytes: Of the file, as the repository's page shows it: 10^6 bytes, rounded; None if it was not seen.
        notice: Lines that tell the terms, shown before the first use in a process.
    """

    repo: str
    revision: str | None
    sha256: str | None
    filename: str = _FILENAME
    licence: str
    source: str = ""
    top1: float | None = None
    size: int | None = None
    megabytes: float | None = None
    notice: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (match := _REPO.fullmatch(self.repo)) or match["revision"]:
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
        return IMAGENET_CAVEAT if "ImageNet" in self.source else ""

    def describe(self) -> dict[str, Any]:
        """Return them as plain values."""
        return vars(self) | {"notice": list(self.notice), "pinned": self.pinned, "caveat": self.caveat}


@dataclass(frozen=True, kw_only=True)
class WebWeights:
    """Published weights whose publisher keeps them at addresses of its own, and allows no copies of them elsewhere.

    Attributes:
        filename: Name of the file.
        sha256: Of the file, 64 hexadecimal digits.
        locations: Addresses, the most likely one first.
        mirror: A public Hub repository with a safetensors copy, asked before the addresses; None if there is none.
        licence: SPDX identifier, or one that begins with `licenseref-`; lower case.
        notice: Lines that tell the terms, shown before the first use in a process.
        source: Who trained them, on what.
        mean_ap: Published mAP@[.5:.95] on COCO 2017 val, per cent.
        repo_setting: Setting that names a repository of the user's own, in `zoo.config`.
    """

    filename: str
    sha256: str
    locations: tuple[str, ...]
    mirror: Weights | None = None
    licence: str
    notice: tuple[str, ...] = ()
    source: str = ""
    mean_ap: float | None = None
    repo_setting: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise InputError(f"weights {self.filename}: sha256 is {self.sha256!r}; expected 64 hexadecimal digits.")

    @property
    def pinned(self) -> bool:
        """Whether the content of every place is fixed."""
        return self.mirror is None or self.mirror.pinned

    @property
    def caveat(self) -> str:
        """What is to be known beside the licence: `notice` tells it."""
        return ""

    def describe(self) -> dict[str, Any]:
        """Return them as plain values."""
        lists = {"locations": list(self.locations), "notice": list(self.notice)}
        mirror = self.mirror and self.mirror.describe()
        return vars(self) | lists | {"mirror": mirror, "pinned": self.pinned}


class ForeignFile(NamedTuple):
    """What a file of another program holds.

    Attributes:
        tensors: By name.
        config: What it says of the model, as a `config.json` would.
        notes: What a reader of a report has to know of how it was read.
    """

    tensors: "dict[str, Tensor]"
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


ReadForeign: TypeAlias = Callable[[Path], ForeignFile]


@dataclass(frozen=True)
class Found:
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
        origin: As in `Found`; so are `sha256`, `revision`, `licence` and `pinned`.
        loaded: Names of the tensors that now hold the file's values.
        reinitialised: Names of the tensors of the head that were left as newly made.
        unused: Names of the tensors of the file's head that were not taken.
        spare: Names of the tensors that the file lacks and no output depends on; they are as newly made.
        notes: As in `Found`.
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
        lines += [f"newly made: {', '.join(self.reinitialised)}"] if self.reinitialised else []
        lines += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        lines += [f"not in the file, nor needed: {_shorten(self.spare)} ({len(self.spare)})"] if self.spare else []
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(map(clean, lines))


def find_weights(
    pretrained: bool | str | Path,
    known: Weights | WebWeights | None,
    *,
    name: str,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    read_foreign: ReadForeign | None = None,
) -> Found:
    """Bring a file of weights to this machine and check it.

    Args:
        pretrained: True for the known weights on the Hub; the path of a safetensors file, or of a folder with
            `model.safetensors` or a single other one; or `org/name`, `org/name@revision` of a repository. An existing
            path comes first.
        known: The model's published weights, if there are any; a file with their digest has their licence.
        name: The model, named in errors.
        cache_dir: Cache for downloads; None for the Hub client's own.
        token: Access token; None for the saved one, False for none.
        read_foreign: Reads a file of another program: `.pth` or `.pt`, or a safetensors file whose `config.json` is one
            of transformers. None: the former are refused, the latter taken as they are.

    Raises:
        WeightsError: They cannot be had, or are not what they should be.
        InputError: `pretrained` is none of the above.
    """
    if not isinstance(pretrained, (bool, str, Path)) or pretrained is False:
        raise InputError(
            f"pretrained is {pretrained!r}; expected True, a path, or 'org/name' with or without '@revision'."
        )
    wanted = HubFile(
        model=name,
        repo="",
        filename=_FILENAME,
        cache_dir=None if cache_dir is None else to_path(cache_dir),
        token=token,
    )
    if pretrained is True:
        if not isinstance(known, Weights):
            raise WeightsError(
                f"no pretrained weights are known for {name}. Pass pretrained= a path, 'org/name' or False."
            )
        wanted = replace(wanted, repo=known.repo, filename=known.filename, is_known=True)
        wanted = replace(wanted, revision=known.revision or "main")
        return _find_on_hub(wanted, known, read_foreign)
    path = to_path(pretrained)
    if str(pretrained) and os.path.exists(path):
        return _find_locally(path, known, name, read_foreign)
    match = _REPO.fullmatch(pretrained) if isinstance(pretrained, str) else None
    if match is None or names_pickle(match["repo"]) or match["repo"].endswith(".safetensors"):
        raise WeightsError(
            f"weights of {name}: there is no file or folder {str(pretrained)!r} (seen from {Path.cwd()}), and "
            "'org/name' or 'org/name@revision' was expected for a repository."
        )
    hint = f"There is no local file or folder {pretrained!r} either."
    return _find_on_hub(
        replace(wanted, repo=match["repo"], revision=match["revision"] or "main", hint=hint), None, read_foreign
    )


def load_into(model: "nn.Module", found: Found, *, head: Sequence[str], keep_head: bool) -> LoadReport:
    """Load a file into a model; one that does not fit leaves it as it is.

    The file is read in parts: at most an eighth of it is in memory beside the model. Names and shapes have to be
    equal, except for the head when it is not kept. Floating-point values are cast to the type of the model's. A batch
    norm's counter `num_batches_tracked` may be missing, as in files of old versions, and so may what the model calls
    dormant. A model with `take_form` takes the form that the file's names tell.

    Args:
        model: Changed in place.
        found: The file.
        head: Prefixes of the names of what depends on the classes.
        keep_head: Whether to load that; if not, it stays as it is.

    Raises:
        WeightsError: The file does not fit; the text names the first tensors. No weight of the model has changed, but
            blocks may have taken another form. Or it cannot be read to its end; the model is then half loaded.
    """
    slots, head = found.slots(), tuple(head)
    take_form = ask(model, "take_form")
    if take_form is not None:
        take_form(slots.keys())
    own = model.state_dict()
    dormant: Collection[str] = ask(model, "dormant_parameters", frozenset)()
    skipped = () if keep_head else head
    taken = {name: slot for name, slot in slots.items() if not name.startswith(skipped)}
    wanted = {name: value for name, value in own.items() if not name.startswith(skipped)}
    spare = {name for name in wanted if name in dormant or name.endswith("num_batches_tracked")}
    problems = _compare(taken, wanted, spare)
    if problems:
        advice = "Expected the weights of this architecture and size, with the same names."
        if all(name.startswith(head) for names in problems.values() for name in names):
            advice = "Only the head differs: ask for the file's number of classes, or for a new head."
        listed = "; ".join(f"{len(names)} {what}: {_shorten(names)}" for what, names in problems.items())
        raise WeightsError(f"{found.origin} does not fit {type(model).__name__}: {listed}. {advice}")
    for part in found.parts():
        values = {name: tensor.to(own[name].dtype) for name, tensor in part.items() if name in taken}
        model.load_state_dict(model.state_dict() | values)
        del part, values  # before the next one is read
    return LoadReport(
        origin=found.origin,
        loaded=tuple(name for name in own if name in taken),
        reinitialised=tuple(name for name in own if name.startswith(skipped)),
        unused=tuple(name for name in slots if name.startswith(skipped)),
        sha256=found.sha256,
        revision=found.revision,
        licence=found.licence,
        pinned=found.pinned,
        spare=tuple(name for name in wanted if name in spare and name not in taken),
        notes=found.notes,
    )


def is_commercial(licence: str | None) -> bool:
    """Whether a licence is known to allow commercial use, without conditions on one's own code.

    Args:
        licence: SPDX identifier in any case; anything else, and None, is not known to.
    """
    return licence is not None and licence.strip().lower() in _COMMERCIAL


def _find_on_hub(wanted: HubFile, known: Weights | None, read_foreign: ReadForeign | None) -> Found:
    path, commit = fetch_file(wanted)
    wanted = replace(wanted, revision=commit)  # whatever else is fetched belongs to the same commit
    path, digest = _verify(path, wanted, known.sha256 if known else None)
    needs_config = known is None or read_foreign is not None
    config_path = fetch_if_there(replace(wanted, filename=CONFIG)) if needs_config else None
    config = None if config_path is None else _read_config(config_path, f"{CONFIG} of {wanted.repo}")
    found = Found(
        path=path,
        config=config,
        origin=f"{get_endpoint()}/{wanted.repo}",
        revision=commit,
        sha256=digest,
        licence=known.licence if known else _get_licence(config),
        pinned=known is not None and known.pinned,
    )
    return _translate(found, read_foreign)


def _translate(found: Found, read_foreign: ReadForeign | None) -> Found:
    """Return a safetensors file as its reader has it, if `config.json` says that it is one of transformers."""
    config = found.config or {}
    if read_foreign is None or "model_type" not in config or "zoo" in config:
        return found
    content = read_foreign(found.path)
    return replace(found, config=content.config, foreign=content.tensors, notes=content.notes)


def _verify(path: Path, wanted: HubFile, expected: str | None) -> tuple[Path, str]:
    """Return the file and its SHA-256, downloaded once more if its content was wrong.

    A cached file is hashed before its first use on this machine, and again when it has changed.
    """
    stored_as = path.resolve().name  # in the cache, a large file goes by the digest that the Hub announced
    expected = expected or (stored_as if re.fullmatch("[0-9a-f]{64}", stored_as) else None)
    digest = _digest(path, wanted)
    if expected in (None, digest):
        return path, digest
    wrong = (
        f"weights of {wanted.model}: {wanted.filename} of {wanted.repo} at {wanted.revision}, from {get_endpoint()}, "
        f"has the wrong content: its sha256 is {digest}, expected {expected}."
    )
    try:
        path, _ = fetch_file(wanted, force=True)
    except WeightsError as error:
        why = str(error).removeprefix(f"weights of {wanted.model}: ")
        raise WeightsContentError(f"{wrong} A new download failed: {why}") from error
    digest_again = _digest(path, wanted)
    if digest_again != expected:
        what = "A new download has the same" if digest_again == digest else f"A new download has {digest_again}"
        raise WeightsContentError(
            f"{wrong} {what}. Do not use the file; ask whoever runs the endpoint or the repository."
        )
    return path, digest_again


def _digest(path: Path, wanted: HubFile) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        text = f"weights of {wanted.model}: {path} cannot be read: {error.strerror or error}. Remove it."
        raise WeightsStorageError(text) from error


def _find_locally(path: Path, known: Weights | WebWeights | None, name: str, read_foreign: ReadForeign | None) -> Found:
    path = find_file(path, model=name, foreign=read_foreign is not None)
    check_checksum(path)
    check_checksum(path.with_name(CONFIG))
    try:
        digest = digest_file(path)
    except OSError as error:
        raise WeightsStorageError(f"weights of {name}: {path} cannot be read: {error.strerror}.") from error
    is_known = known is not None and known.sha256 == digest
    if read_foreign is not None and names_pickle(path.name):
        content = read_foreign(path)
        licence = known.licence if known and is_known else None
        return Found(path, content.config, str(path), None, digest, licence, is_known, content.tensors, content.notes)
    config_path = path.with_name(CONFIG)
    config = _read_config(config_path, str(config_path)) if config_path.is_file() else None
    licence = known.licence if known and is_known else _get_licence(config)
    return _translate(Found(path, config, str(path), None, digest, licence, pinned=False), read_foreign)


def _read_config(path: Path, origin: str) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{origin} cannot be used: {error}. Repair or remove it.") from error


def _get_licence(config: dict[str, Any] | None) -> str | None:
    """Return the licence that a configuration states for its weights, in the places where it is commonly put."""
    inner = (config or {}).get("pretrained_cfg")
    places = [config or {}, inner if isinstance(inner, dict) else {}]
    stated = [place.get(key) for place in places for key in ("licence", "license")]
    return next((text.lower() for text in stated if isinstance(text, str) and 0 < len(text) <= 64), None)


def _compare(taken: Mapping[str, Slot], own: "Mapping[str, Tensor]", spare: Collection[str]) -> dict[str, list[str]]:
    """Return what is wrong, as kind of problem to names; empty if everything fits. `spare` names may be missing."""
    problems: dict[str, list[str]] = {
        "missing": [name for name in own if name not in taken and name not in spare],
        "not expected": [name for name in taken if name not in own],
        "of another shape": [],
        "of another type": [],
    }
    for name, ours in own.items():
        theirs = taken.get(name)
        if theirs is None:
            continue
        if theirs.shape != ours.shape:
            shapes = f"(file {list(theirs.shape)}, model {list(ours.shape)})"
            problems["of another shape"].append(f"{name} {shapes}")
        elif theirs.dtype.is_floating_point != ours.is_floating_point():
            problems["of another type"].append(f"{name} (file {theirs.dtype}, model {ours.dtype})")
    return {what: names for what, names in problems.items() if names}


def _shorten(names: Sequence[str]) -> str:
    return clean(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))
