"""The kinds of labels by their names."""

from zoo.errors import InputError
from zoo.tasks.classification.label_kind import SINGLE, LabelKind
from zoo.tasks.classification.multi_label import MULTI

KINDS: dict[str, LabelKind] = {kind.name: kind for kind in (SINGLE, MULTI)}


def find_kind(name: str) -> LabelKind:
    """Return a kind of labels.

    Raises:
        InputError: There is none of this name.
    """
    if name not in KINDS:
        raise InputError(f"labels is {name!r}; expected {' or '.join(KINDS)}.")
    return KINDS[name]
