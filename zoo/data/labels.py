"""From labels to class numbers: names decide, and a number without a name has its digits as its name."""

import operator
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.errors import DataError, InputError, did_you_mean

MOST_LISTED = 10  # labels or classes that a message names
NAME_THEM = "Set the names on the data set, dataset.classes = [...]"
TOP_WITHOUT_NAMES = 100  # from this class number on, gaps are taken for a mistake


def plain_name(name: str) -> str:
    """Return the name of a class as names are compared: composed letters, and single blanks between words alone.

    Else `cat ` and `cat`, or an `e` with its accent in one character and in two, would be two classes. Half characters,
    which no file could be written with, are escaped.
    """
    whole = name.encode("utf-8", "backslashreplace").decode()
    return " ".join(unicodedata.normalize("NFC", whole).split()) or name


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether classes have no names but '0', '1', '2' ... in this order."""
    return all(name == str(number) for number, name in enumerate(classes))


def order_names(names: Iterable[str], like: Sequence[str]) -> tuple[str, ...]:
    """Return different names, those that another list has first and in its order, the others as they come."""
    own: dict[str, str] = {}
    for name in names:
        own.setdefault(plain_name(name), name)
    first = [own[name] for name in map(plain_name, like) if name in own]
    return tuple(dict.fromkeys((*first, *own.values())))


def match_numbers(known: Sequence[str] | None, classes: Sequence[str]) -> Mapping[int, int]:
    """Return which class each number of a data set means, by name; numbers whose class is not there are left out.

    Args:
        known: The data set's own names of its numbers; None: a number has its digits as its name.
        classes: The names of the class numbers to return.
    """
    places = {plain_name(name): number for number, name in enumerate(classes)}
    if known is None:
        return {int(name): place for name, place in places.items() if name.isdecimal() and str(int(name)) == name}
    return {number: places[plain_name(name)] for number, name in enumerate(known) if plain_name(name) in places}


def check_classes(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the class names that a user gave as a tuple; None for none.

    Raises:
        InputError: If they are not different texts.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) and name for name in classes or ()):
        raise InputError(f"classes is {classes!r}; expected a list of names such as ['cat', 'dog'].")
    if twice := [name for name, count in Counter(classes or ()).items() if count > 1]:
        raise InputError(f"classes lists {quote(twice)} twice; expected each class once.")
    return tuple(classes) if classes else None


def plain_labels(labels: Sequence[Any], names: Sequence[str], split: str) -> list[int | str]:
    """Turn labels into plain integers or texts.

    Args:
        labels: Integers of any kind, also as tensors, or class names.
        names: What to call each sample.
        split: What to call the split.

    Raises:
        DataError: If a label is anything else, or numbers and names are mixed.
    """
    plain: list[int | str] = []
    wrong: list[str] = []
    for label, name in zip(labels, names, strict=True):
        value = _plain(label)
        if value is None or (isinstance(value, int) and value < 0):
            wrong.append(f"{name}: {' '.join(repr(label).split())[:40]} ({type(label).__name__})")
        else:
            plain.append(value)
    if wrong:
        hint = "Give each sample exactly one class, and remove samples without one."
        if all("(bool" in line or "(np.bool" in line for line in wrong):
            hint = "Convert True and False to 1 and 0, int(label), or to names."
        raise DataError(
            f"{_count(wrong)} of {split} cannot be used; expected class numbers from 0 or class names:"
            f"{_list(wrong)}\n{hint}"
        )
    if len({type(value) for value in plain}) > 1:
        raise DataError(f"the labels of {split} mix numbers and names; expected one kind.")
    return plain


def derive_classes(
    labels: Sequence[int | str], known: tuple[str, ...] | None, split: str, like: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return class names: the known ones, or the sorted names among the labels, or the numbers up to the greatest.

    Args:
        labels: Plain ones.
        known: The names of the numbers, if there are any.
        split: What to call the split.
        like: Names of other classes; numbers that are all among them need not count from 0.

    Raises:
        DataError: The labels are numbers that hardly count classes from 0.
    """
    if known:
        return tuple(dict.fromkeys(map(plain_name, known)))
    numbers = [label for label in labels if isinstance(label, int)]
    if not numbers:
        return tuple(sorted({plain_name(str(label)) for label in labels}))
    if {str(number) for number in numbers} <= set(like):
        return tuple(map(str, sorted(set(numbers))))
    check_numbers(min(numbers), max(numbers), len(set(numbers)), split)
    return tuple(str(number) for number in range(max(numbers) + 1))


def check_numbers(least: int, greatest: int, different: int, split: str) -> None:
    """Refuse numbers without names that hardly count classes from 0.

    Raises:
        DataError: They begin above 0, or only few of those up to the greatest are in use.
    """
    name_them = "or name every number from 0: zoo.open_data(..., classes=[...])."
    if greatest >= TOP_WITHOUT_NAMES and greatest >= 10 * different:
        raise DataError(
            f"the labels of {split} go up to {greatest:,}, but only {different:,} are used; expected class numbers "
            f"0, 1, 2 ... Renumber the classes, {name_them}"
        )
    if least > 0 and different > 1:
        raise DataError(
            f"the labels of {split} go from {least:,} to {greatest:,}; expected class numbers from 0. Subtract "
            f"{least:,} from each, {name_them}"
        )


def number_labels(
    labels: Sequence[int | str],
    known: tuple[str, ...] | None,
    classes: tuple[str, ...],
    *,
    names: Sequence[str],
    split: str,
    origin: str,
    by_name: bool = True,
) -> tuple[int, ...]:
    """Turn labels into class numbers, by name.

    Args:
        labels: Plain ones.
        known: The split's own names of its numbers.
        classes: The names of the numbers to return.
        names: What to call each sample.
        split: What to call the split.
        origin: Where the classes come from, for messages.
        by_name: Whether a number without a name stands for the class that is called by its digits; if not, for its
            place among the classes.

    Raises:
        DataError: If a number is out of range, or a name is not among the classes.
    """
    are_places = known is None and (not by_name or are_numbers(classes))
    if known or are_places:
        _check_range(labels, known or classes, names, split)
    places = {plain_name(name): number for number, name in enumerate(classes)}
    table = {number: number for number in range(len(classes))} if are_places else match_numbers(known, classes)
    numbers = [table.get(label) if isinstance(label, int) else places.get(plain_name(label)) for label in labels]
    lost = [label for label, number in zip(labels, numbers, strict=True) if number is None]
    if lost and known is None and not table and isinstance(lost[0], int):
        raise DataError(say_nameless(split, classes, origin))
    if lost:
        texts = [known[label] if known and isinstance(label, int) else str(label) for label in lost]
        raise DataError(_say_unknown(Counter(map(plain_name, texts)), classes, split, origin))
    return tuple(number for number in numbers if number is not None)


def say_nameless(split: str, classes: Sequence[str], origin: str, way_out: str = NAME_THEM) -> str:
    """Say that numbers without names cannot be matched with classes that have names."""
    return (
        f"the labels of {split} are numbers without names, but the classes of {origin} have names: {quote(classes)}, "
        f"so the numbers cannot be matched. {way_out}, or open it with zoo.open_data(..., classes=[...]), in the "
        "order of the numbers."
    )


def _check_range(labels: Sequence[int | str], classes: Sequence[str], names: Sequence[str], split: str) -> None:
    limit = len(classes)
    numbered = zip(labels, names, strict=True)
    out = [f"{name}: {label}" for label, name in numbered if isinstance(label, int) and label >= limit]
    if out:
        raise DataError(
            f"{_count(out)} of {split} out of range; expected 0 to {limit - 1:,} for {limit:,} "
            f"class{'es' * (limit != 1)}:{_list(out)}\nCorrect the labels, or pass classes= with all names."
        )


def _say_unknown(unknown: Mapping[str, int], classes: Sequence[str], split: str, origin: str) -> str:
    counts = [f"{name!r} ({count:,} image{'s' * (count > 1)})" for name, count in sorted(unknown.items())]
    more = f" and {len(counts) - MOST_LISTED} more" if len(counts) > MOST_LISTED else ""
    name = min(unknown)
    hint = did_you_mean(name, classes)
    if hint and not (name + hint).isascii():  # different letters may look the same
        escaped = hint.encode("ascii", "backslashreplace").decode()
        hint = f"{escaped} The name in {split} is {name!a}."
    return (
        f"{split} has classes that are missing in {origin}: {', '.join(counts[:MOST_LISTED])}{more}.{hint} Known "
        f"classes: {quote(classes)}. Rename or remove them in {split}, or add them to {origin}."
    )


def _plain(label: Any) -> int | str | None:
    if isinstance(label, str):
        return str(label)
    if isinstance(label, bool) or "bool" in str(getattr(label, "dtype", "")):
        return None
    if getattr(label, "shape", None) == (1,) and hasattr(label, "item"):  # arrays of one number, as tensors of one
        label = label.item()
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError):  # what numpy and torch raise for several numbers, or for fractions
        return None


def _count(wrong: Sequence[str]) -> str:
    return f"{len(wrong):,} label{'s' * (len(wrong) > 1)}"


def _list(lines: Sequence[str]) -> str:
    shown = [f"\n  {line}" for line in lines[:MOST_LISTED]]
    return "".join(shown) + (f"\n  ... and {len(lines) - MOST_LISTED:,} more" if len(lines) > MOST_LISTED else "")


def quote(names: Sequence[str]) -> str:
    """Return names for a message, the first of them where there are many."""
    shown = ", ".join(map(repr, names[:MOST_LISTED]))
    return f"{shown} and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else shown
