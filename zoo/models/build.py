"""Builds a model by its name, or from a repository or folder, and loads its weights."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo._text import warn
from zoo.errors import ExportedError, InputError, WeightsError
from zoo.files import tell_missing, to_path
from zoo.models.catalog import find_entry, list_families
from zoo.models.class_rows import find_rows, move_rows, say_rows
from zoo.models.config import MAX_CLASSES, ModelConfig, adopt_thresholds, make_postprocess
from zoo.models.custom import build_custom, choose_preprocess, take_weights, takes_drop_rate
from zoo.models.registry import Entry
from zoo.models.saved import Saved, find_saved_entry, names_repository, open_saved
from zoo.weights import (
    FileWeights,
    Licence,
    ResolvedWeights,
    check_commercial,
    find_file_weights,
    find_weights,
    load_into,
)

ANY_CLASSES = 2  # of an outline whose number of classes is not known yet
if TYPE_CHECKING:
    from zoo.models.interface import Model

_TOLD: set[tuple[str, ...]] = set()  # terms that were shown in this process


def get(
    name: str | os.PathLike[str],
    *,
    pretrained: bool | str | os.PathLike[str] = False,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    drop_rate: float = 0.0,
    in_channels: int | None = None,
    commercial: bool | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
) -> "Model":
    """Build a model by its name, or load a saved one; arguments and errors are those of `zoo.get`.

    Raises:
        ExportedError: The place holds an exported model, or is a file.
    """
    entry, pretrained = _choose(name, pretrained, commercial, cache_dir, token)
    names = _check_classes(num_classes, classes)
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed!r}; expected a whole number from 0 to 2**63 - 1.")
    _check_arguments(entry, drop_rate, in_channels)
    wanted = _Wanted(names, num_classes, drop_rate, in_channels, seed)
    if pretrained is False or pretrained is None:
        return cast("Model", _build(entry, ModelConfig(origin={"pretrained": False}), None, wanted))
    if pretrained is True and entry.weights:
        check_commercial(entry.name, entry.weights.licence, commercial)
        _tell_terms(entry, entry.weights.licence)
    found = _find(entry, pretrained, cache_dir, token)
    model: Model = _load(entry, found, wanted, commercial)
    model.config["origin"]["pretrained"] = pretrained if isinstance(pretrained, bool) else _name_source(pretrained)
    return model


def look_up(name: str | os.PathLike[str]) -> Entry:
    """Return what is known of a model of `get`: by its name, or by the configuration of the repository or folder.

    Raises:
        InputError: There is no such model.
        WeightsError: The configuration cannot be had.
    """
    return _choose(name, False, None, None, None)[0]


def find_task(name: str) -> str:
    """Return what a model of `get` is for, as `look_up` finds it."""
    return look_up(name).task


def check_pretrained(name: str, pretrained: bool | str | None) -> None:
    """Refuse weights of a named model that cannot be had or must not be used, as far as its entry tells.

    Raises:
        WeightsError: None are known.
        LicenceError: They do not allow the commercial use that the environment asks for.
    """
    if pretrained is not True or names_saved(name):
        return
    entry = find_entry(name)
    if entry.weights is None:
        raise WeightsError(
            f"no pretrained weights are published for {entry.name}. Use random weights (--no-pretrained, "
            "pretrained=False), or pass the path or repository of others (--weights, pretrained=)."
        )
    check_commercial(entry.name, entry.weights.licence, None)


def fetch_weights(name: str, pretrained: bool | str | None) -> ResolvedWeights | None:
    """Bring the weights that `get` would load to this machine and check them; None for random weights.

    Raises:
        WeightsError: They cannot be had.
        LicenceError: They do not allow the commercial use that the environment asks for.
    """
    entry, source = _choose(name, pretrained or False, None, None, None)
    if source is False:
        return None
    check_pretrained(name, pretrained)
    return _find(entry, source, None, None)


def build_outline(name: str) -> Any:
    """Return the network of a name with the names and shapes of its parameters but no values, on torch's meta device.

    It takes no memory and no weights, so a plan can be checked before anything is downloaded.

    Args:
        name: As for `get`; a repository's is not looked up.

    Raises:
        InputError: There is no such model, or a library that builds it is missing.
    """
    import torch

    saved = open_saved(name) if names_saved(name) else None
    entry = _find_named(name) if saved is None else find_saved_entry(saved)
    config = ModelConfig() if saved is None else saved.config.fitting(entry)
    wanted = _Wanted(config.names, config.num_classes or entry.num_classes or ANY_CLASSES)
    if entry.is_custom:  # somebody else's builder may not know that device
        return _build(entry, config, None, wanted)
    with torch.device("meta"):
        return _build(entry, config, None, wanted)


def _name_source(source: str | os.PathLike[str]) -> str:
    """Return where weights are so that it can be found again from any folder."""
    path = to_path(source)
    return str(path.absolute()) if path.exists() else str(source)


def from_weights(name: str, found: ResolvedWeights) -> Any:
    """Build the model of a name with weights that are on this machine, as `zoo.get` does.

    Raises:
        WeightsError: They do not fit.
    """
    return _load(find_entry(name), found, _Wanted(), None)


def from_config(config: ModelConfig) -> Any:
    """Build the model that a checkpoint's configuration describes, with weights still to be loaded.

    Raises:
        InputError: There is no such model here.
    """
    entry = find_saved_entry(Saved(config, "", is_timm=False))
    config = config.fitting(entry)
    drop_rate = float(config.options.get("drop_rate", 0.0))
    return _build(entry, config, None, _Wanted(config.names, config.num_classes, drop_rate, None, config.init_seed))


def _choose(
    name: str | os.PathLike[str],
    pretrained: bool | str | os.PathLike[str],
    commercial: bool | None,
    cache_dir: str | os.PathLike[str] | None,
    token: Any,
) -> tuple[Entry, bool | str | os.PathLike[str]]:
    """Return the model that a name or a repository means, and where its weights are."""
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    elif not names_saved(name):
        if "/" in name and name.partition("/")[0] not in list_families() and (missing := tell_missing(name)):
            raise InputError(missing)
        return _find_named(name), pretrained
    if pretrained not in (False, True, None):
        raise InputError(
            f"{name!r} already includes weights, but pretrained={str(pretrained)!r} was passed too. Remove one of "
            "them, or pass a plain model name."
        )
    saved = open_saved(name, cache_dir=cache_dir, token=token)
    entry = find_saved_entry(saved)
    check_commercial(entry.name, saved.config.licence, commercial)  # before its weights are fetched
    return entry, saved.source


def _find_named(name: str) -> Entry:
    """Return the model of a name; a file is told apart from a name that is mistyped."""
    try:
        return find_entry(name)
    except InputError as error:
        if not os.path.isfile(to_path(name)):
            raise
        raise ExportedError(
            f"{name} is a file; expected a model's name, a run's folder or a repository. An exported model predicts "
            "(zoo predict, zoo.load), but cannot be trained: use the run that it was exported from."
        ) from error


def names_saved(name: str) -> bool:
    """Whether a name is that of a repository or a folder, with weights; `timm/resnet18` is that of a model."""
    if not isinstance(name, str) or name.partition("/")[0] in list_families():
        return False
    return names_repository(name) or (os.path.isfile(to_path(name) / "config.json") and not _is_known(name))


def _is_known(name: str) -> bool:
    """Whether a model has that name, which then comes before a folder of that name."""
    try:
        find_entry(name)
    except InputError:
        return False
    return True


def _find(
    entry: Entry, pretrained: bool | str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None, token: str | None
) -> ResolvedWeights:
    """Bring weights to this machine."""
    cache_dir = None if cache_dir is None else to_path(cache_dir)
    name, read = entry.name, entry.read_foreign
    if pretrained is True and isinstance(entry.weights, FileWeights) and read is not None:
        return find_file_weights(entry.weights, read, name=name, cache_dir=cache_dir, token=token)
    source: Any = Path(pretrained) if isinstance(pretrained, os.PathLike) else pretrained
    return find_weights(source, entry.weights, name=name, cache_dir=cache_dir, token=token, read_foreign=read)


@dataclass(frozen=True)
class _Wanted:
    """What was asked for; None: as the weights have it."""

    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    drop_rate: float = 0.0
    in_channels: int | None = None
    seed: int = 0

    @property
    def count(self) -> int | None:
        return len(self.classes) if self.classes else self.num_classes


def _load(entry: Entry, found: ResolvedWeights, wanted: _Wanted, commercial: bool | None) -> Any:
    config = ModelConfig.parse(found.config, found.origin).fitting(entry) if found.config else ModelConfig()
    found = replace(found, licence=found.licence or config.licence)
    check_commercial(entry.name, found.licence, commercial)
    _tell_terms(entry, found.licence)
    return _build(entry, config, found, wanted)


def _build(entry: Entry, config: ModelConfig, found: ResolvedWeights | None, wanted: _Wanted) -> Any:
    if entry.is_custom:
        return _build_custom(entry, config, found, wanted)
    options = {key: value for key, value in config.options.items() if key != "drop_rate"}
    options |= _read_options(entry, found) if found else {}
    if wanted.in_channels is not None and not found:
        options["in_channels"] = wanted.in_channels
    rate = {"drop_rate": wanted.drop_rate} if _takes_drop_rate(entry) else {}
    make = partial(_make, entry, options | rate, wanted.seed)

    theirs = cast(int, config.num_classes or entry.num_classes)
    count = wanted.count or theirs
    model = make(count)
    if found and config.num_classes is None:  # a bare file: what depends on the classes tells how many there are
        theirs = _count_classes(found, model) or theirs
        if not wanted.count and theirs != count and 1 <= theirs <= MAX_CLASSES:
            count, model = theirs, make(theirs)
    names = config.names or (entry.classes if found and len(entry.classes) == theirs else None)
    keeps_head = count == theirs and wanted.classes in (None, names)
    if found and wanted.classes and names and set(find_rows(wanted.classes, names)) != {None} and not keeps_head:
        model, keeps_head = _load_moved(make(theirs), model, found, wanted.classes, names), True
    elif found:
        prefixes = getattr(model, "class_prefixes", model.head_prefixes)
        model.load_report = load_into(model, found, head=prefixes, keep_head=keeps_head)
    if wanted.in_channels is not None and found and wanted.in_channels != model.in_channels:
        model.replace_in_channels(wanted.in_channels)
    if "in_channels" in entry.options:
        options["in_channels"] = model.in_channels
    model.preprocess = config.preprocess_value or entry.preprocess
    if entry.postprocess is not None:
        model.postprocess = make_postprocess(config.postprocess or entry.postprocess)
    model.classes = wanted.classes or (names if keeps_head else None) or _default_names(count, keeps_head and found)
    if keeps_head:
        adopt_thresholds(model, config)
    origin = {"init_seed": wanted.seed}
    _describe(model, entry, config, found, options | rate, origin)
    return model.eval()


def _load_moved(model: Any, fresh: Any, found: ResolvedWeights, classes: Sequence[str], names: Sequence[str]) -> Any:
    """Load weights whole, then give the model its classes: the outputs of the same names are kept."""
    report = load_into(model, found, head=(), keep_head=True)
    move_rows(model, fresh, find_rows(classes, names))
    model.load_report = replace(report, notes=(*report.notes, f"outputs by name: {say_rows(classes, names)}"))
    return model


def _build_custom(entry: Entry, config: ModelConfig, found: ResolvedWeights | None, wanted: _Wanted) -> Any:
    """Build a model that a user registered."""
    import torch

    count = wanted.count or config.num_classes or entry.num_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        model: Any = build_custom(entry, count, wanted.drop_rate)
    preprocess = choose_preprocess(entry, model, config)
    report = take_weights(entry, model, found, config, wanted.classes) if found else None
    names = config.names if report and not report.reinitialised and len(config.names or ()) == count else None
    model.preprocess, model.load_report = preprocess, report
    model.classes = wanted.classes or names or _default_names(cast(int, count), False)
    if names or not found:
        adopt_thresholds(model, config)
    options = {"drop_rate": wanted.drop_rate} if takes_drop_rate(entry) else {}
    _describe(model, entry, config, found, options, {"init_seed": wanted.seed, "registered": True})
    return model.eval()


def _make(entry: Entry, options: Mapping[str, Any], seed: int, num_classes: int) -> Any:
    """Call a builder; the caller's random numbers stay as they are."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.build(num_classes=num_classes, **options)


def _describe(
    model: Any,
    entry: Entry,
    config: ModelConfig,
    found: ResolvedWeights | None,
    options: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> None:
    """Set the licence of a model that was just built, and what a checkpoint needs to build it again."""
    model.licence = Licence(entry.code_licence, found.licence or "unknown" if found else config.licence)
    place = {"weights": found.origin, "revision": found.revision, "sha256": found.sha256} if found else {}
    model.config = config.derived(entry, options, model.licence.weights, **origin, **place).model_dump()


def _read_options(entry: Entry, found: ResolvedWeights) -> dict[str, Any]:
    """Return the options that the shapes in a file tell, if the model allows them."""
    options = entry.read_options(found.shapes()) if entry.read_options else {}
    for key, value in options.items():
        if value not in entry.options[key]:
            raise WeightsError(f"{found.origin} has {key}={value}; {entry.name} supports {entry.options[key]}.")
    return options


def _count_classes(found: ResolvedWeights, model: Any) -> int | None:
    """Return how many classes a file is for, by the rows of what depends on them."""
    shapes = found.shapes()
    for prefix in getattr(model, "class_prefixes", None) or (model.head_name,):
        rows = shapes.get(f"{prefix.rstrip('.')}.weight", ())
        if rows:
            return rows[0]
    return None


def _default_names(num_classes: int, is_pretrained: object) -> tuple[str, ...]:
    """Name the classes by ImageNet-1k where the weights are of it, else by number."""
    if num_classes == 1000 and is_pretrained:
        from timm.data import ImageNetInfo

        info = ImageNetInfo()  # reads its tables from disk: once, not once for every class
        return tuple(info.index_to_description(index) for index in range(num_classes))
    return tuple(str(index) for index in range(num_classes))


def _check_classes(num_classes: int | None, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    whole = isinstance(num_classes, int) and not isinstance(num_classes, bool)
    if num_classes is not None and not (whole and 1 <= num_classes <= MAX_CLASSES):
        raise InputError(f"num_classes is {num_classes!r}; expected a whole number from 1 to {MAX_CLASSES:,}.")
    if classes is None:
        return None
    if (
        isinstance(classes, str)
        or not isinstance(classes, Sequence)
        or not all(isinstance(name, str) and name for name in classes)
    ):
        raise InputError(f"classes is {classes!r}; expected a sequence of names.")
    names = tuple(classes)
    if len(set(names)) != len(names) or not names:
        raise InputError(
            f"classes has {len(names)} names, but only {len(set(names))} different ones; expected unique names."
        )
    if num_classes not in (None, len(names)):
        raise InputError(f"num_classes is {num_classes} and classes has {len(names)} names. Pass only one of them.")
    return names


def _check_arguments(entry: Entry, drop_rate: Any, in_channels: Any) -> None:
    """Refuse what is out of range, or no argument of this model."""
    if not isinstance(drop_rate, (int, float)) or not 0 <= drop_rate < 1:
        raise InputError(f"drop_rate is {drop_rate!r}; expected 0 <= drop_rate < 1.")
    if drop_rate and not entry.is_custom and not _takes_drop_rate(entry):
        raise InputError(f"{entry.name} does not support drop_rate. Remove it.")
    if in_channels is None:
        return
    if "in_channels" not in entry.options:
        raise InputError(f"{entry.name} supports three-channel images only; in_channels is {in_channels!r}. Remove it.")
    allowed = entry.options["in_channels"]
    if type(in_channels) is not int or in_channels not in allowed:
        raise InputError(f"in_channels is {in_channels!r}; expected a whole number in {allowed}.")


def _takes_drop_rate(entry: Entry) -> bool:
    """Whether a builder of this package passes it on: by name, or with all other options."""
    arguments = inspect.signature(entry.build).parameters.values()
    return any(argument.name == "drop_rate" or argument.kind is argument.VAR_KEYWORD for argument in arguments)


def _tell_terms(entry: Entry, licence: str | None) -> None:
    """Print the terms of weights that bind their user, once in a process."""
    weights = entry.weights
    if weights is None or not weights.notice or licence != weights.licence or weights.notice in _TOLD:
        return
    _TOLD.add(weights.notice)
    for line in weights.notice:
        warn(line)
