"""From labels to class numbers: numbers or names, with or without a list of classes."""

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

from zoo.errors import DataError, InputError, did_you_mean

MOST_LISTED = 10  # labels or classes that a message names
TOP_WITHOUT_NAMES = 100  # from this class number on, gaps are taken for a mistake


def check_classes(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the class names that a user gave as a tuple; None for none.

    Raises:
        InputError: If they are not different texts.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) and name for name in classes or ()):
        raise InputError(f"classes is {classes!r}; expected a list of names such as ['cat', 'dog'].")
    if twice := [name for name, count in Counter(classes or ()).items() if count > 1]:
        raise InputError(f"classes names {_quote(twice)} twice; expected each class once.")
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
        raise DataError(
            f"{_count(wrong)} of {split} cannot be used; expected class numbers from 0 or class names:"
            f"{_list(wrong)}\nGive each sample one class, and leave out those that have none."
        )
    if len({type(value) for value in plain}) > 1:
        raise DataError(f"the labels of {split} are numbers and names mixed; expected one kind.")
    return plain


def derive_classes(labels: Sequence[int | str], known: tuple[str, ...] | None, split: str) -> tuple[str, ...]:
    """Return class names: the known ones, or the sorted names among the labels, or the numbers up to the greatest."""
    if known:
        return known
    numbers = [label for label in labels if isinstance(label, int)]
    if not numbers:
        return tuple(sorted({str(label) for label in labels}))
    top, different = max(numbers), len(set(numbers))
    if top >= TOP_WITHOUT_NAMES and top >= 10 * different:
        raise DataError(
            f"the labels of {split} go up to {top:,}, but only {different:,} of them differ; expected class numbers "
            "0, 1, 2 ... Number the classes anew, or pass classes= with the name of each number."
        )
    return tuple(str(number) for number in range(top + 1))


def number_labels(
    labels: Sequence[int | str],
    known: tuple[str, ...] | None,
    classes: tuple[str, ...],
    *,
    names: Sequence[str],
    split: str,
    origin: str,
) -> tuple[int, ...]:
    """Turn labels into class numbers, by name where names are known.

    Args:
        labels: Plain ones.
        known: The split's own names of its numbers.
        classes: The names of the numbers to return.
        names: What to call each sample.
        split: What to call the split.
        origin: Where the classes come from, for messages.

    Raises:
        DataError: If a number is out of range, or a name is not among the classes.
    """
    limit = len(known or classes)
    numbered = zip(labels, names, strict=True)
    out = [f"{name}: {label}" for label, name in numbered if isinstance(label, int) and label >= limit]
    if out:
        raise DataError(
            f"{_count(out)} of {split} out of range; expected 0 to {limit - 1:,} for {limit:,} "
            f"class{'es' * (limit != 1)}:{_list(out)}\nCorrect the labels, or pass classes= with all names."
        )
    if not known and all(isinstance(label, int) for label in labels):
        return tuple(int(label) for label in labels)
    texts = [known[label] if known and isinstance(label, int) else str(label) for label in labels]
    places = {name: number for number, name in enumerate(classes)}
    if unknown := Counter(text for text in texts if text not in places):
        counts = [f"{name!r} ({count:,} image{'s' * (count > 1)})" for name, count in sorted(unknown.items())]
        more = f" and {len(counts) - MOST_LISTED} more" if len(counts) > MOST_LISTED else ""
        raise DataError(
            f"{split} has classes that {origin} lacks: {', '.join(counts[:MOST_LISTED])}{more}."
            f"{did_you_mean(next(iter(sorted(unknown))), classes)} Expected some of {_quote(classes)}. "
            f"Rename or remove them in {split}, or add them to {origin}."
        )
    return tuple(places[text] for text in texts)


def _plain(label: Any) -> int | str | None:
    if isinstance(label, str):
        return str(label)
    if isinstance(label, bool) or "bool" in str(getattr(label, "dtype", "")):
        return None
    try:
        return operator.index(label)
    except (TypeError, ValueError, RuntimeError):  # what numpy and torch raise for several numbers, or for fractions
        return None


def _count(wrong: Sequence[str]) -> str:
    return f"{len(wrong):,} label{'s' * (len(wrong) > 1)}"


def _list(lines: Sequence[str]) -> str:
    shown = [f"\n  {line}" for line in lines[:MOST_LISTED]]
    return "".join(shown) + (f"\n  ... and {len(lines) - MOST_LISTED:,} more" if len(lines) > MOST_LISTED else "")


def _quote(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:MOST_LISTED]))
    return f"{shown} and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else shown
