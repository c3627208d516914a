"""The classes of several COCO files: the ids of a category are those of its file alone, so names decide what is one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from zoo.tasks.detection.annotations import Key
from zoo.tasks.detection.formats._files import Findings, clip, count, deduplicate_class_names, natural_key
from zoo.tasks.detection.formats.coco.json import CocoCategory, CocoJson

MOST_LISTED = 3
TOPS = ("", "none")  # what a category is a kind of that is no kind of another


class CocoClasses(NamedTuple):
    """The classes of all files.

    Attributes:
        names: Name of each class by its key, in the order of the class numbers: by its category id if all files mean
            the same with it, else by the name itself.
        keys: For each file, the key of each category id that may be used.
    """

    names: dict[Key, str]
    keys: tuple[dict[Key, Key], ...]


def resolve_classes(files: Sequence[tuple[CocoJson, Findings]], findings: Findings) -> CocoClasses:
    """Resolve the category ids of each file by their names, and tell what is odd about them.

    Args:
        files: What was read, each with the findings of its place; the first decides on the order where ids do not.
        findings: For what concerns all of them.
    """
    named = [_name_all(content) for content, _ in files]
    _drop_tops(named, [content for content, _ in files], findings)
    if not any(content.categories for content, _ in files):
        return _take_ids(files, findings)
    first: list[dict[str, Key]] = []  # of each file, the id of each name: the first of several
    for names, (content, here) in zip(named, files, strict=True):
        first.append({})
        for key, name in names.items():
            other = first[-1].setdefault(name, key)
            if other != key:
                text = (
                    f"categories {_show(other)} and {_show(key)} are both called {clip(name)}; they are treated as "
                    "one class"
                )
                here.warn("categories with the same name", text, content.categories[key].line)
    if _agree(first):
        names_by_id = {key: name for ids in first for name, key in ids.items()}
        keys = _sort_keys(names_by_id)
        _tell_numbers(keys, findings)
        classes: dict[Key, str] = {key: names_by_id[key] for key in keys}
        own = [{key: ids[name] for key, name in names.items()} for names, ids in zip(named, first, strict=True)]
    else:
        _tell_differences(first, files, findings)
        classes = {name: name for ids in first for name, _ in sorted(ids.items(), key=lambda item: _order(item[1]))}
        own = [dict(names) for names in named]
    return CocoClasses(deduplicate_class_names(classes, findings), tuple(own))


def _name_all(content: CocoJson) -> dict[Key, str]:
    """Return the names of a file's categories by their ids, ascending; of ids that have two names, none."""
    known = content.categories.keys() - content.unclear_categories
    return {key: content.categories[key].name for key in _sort_keys(known)}


def _drop_tops(named: Sequence[dict[Key, str]], contents: Sequence[CocoJson], findings: Findings) -> None:
    """Leave out categories that only hold others, as Roboflow writes one above all: no box has them."""
    used = {name for content, names in zip(contents, named, strict=True)
            for box in content.boxes if (name := names.get(box.key))}  # fmt: skip
    categories = [category for content in contents for category in content.categories.values()]
    for name in dict.fromkeys(name for names in named for name in names.values() if name not in used):
        if _is_top(name, categories):
            findings.note(
                "class map", f"category {clip(name)} only groups others and has no boxes; it is not used as a class"
            )
            for names in named:
                for key in [key for key, other in names.items() if other == name]:
                    del names[key]


def _is_top(name: str, categories: Iterable[CocoCategory]) -> bool:
    own = [category.above for category in categories if category.name == name]
    below = [category for category in categories if category.above == name and category.name != name]
    return bool(below) and all(above.casefold() in TOPS for above in own)


def _agree(files: Sequence[Mapping[str, Key]]) -> bool:
    """Tell whether every id has one name and every name one id, over all files."""
    pairs = {(name, key) for ids in files for name, key in ids.items()}
    return len(pairs) == len({name for name, _ in pairs}) == len({key for _, key in pairs})


def _take_ids(files: Sequence[tuple[CocoJson, Findings]], findings: Findings) -> CocoClasses:
    """Call the classes by the ids that boxes have, where no file names any; as texts, for an id is no class number."""
    used = _sort_keys({box.key for content, _ in files for box in content.boxes} - _unclear(files))
    if used:
        text = f"there are no categories; classes are named by their ids, {_show_keys(used)}"
        findings.warn("categories without a name", text)
    keys = {key: str(key) for key in used}
    return CocoClasses(
        deduplicate_class_names({name: name for name in keys.values()}, findings), tuple(dict(keys) for _ in files)
    )


def _unclear(files: Sequence[tuple[CocoJson, Findings]]) -> set[Key]:
    return {key for content, _ in files for key in content.unclear_categories}


def _tell_differences(
    ids: Sequence[Mapping[str, Key]], files: Sequence[tuple[CocoJson, Findings]], findings: Findings
) -> None:
    """Tell that category ids are others in other files, with a few examples."""
    ids_of: dict[str, dict[Key, str]] = {}
    names_of: dict[Key, dict[str, str]] = {}
    for known, (_, here) in zip(ids, files, strict=True):
        for name, key in known.items():
            ids_of.setdefault(name, {}).setdefault(key, here.file)
            names_of.setdefault(key, {}).setdefault(name, here.file)
    examples = [
        f"{clip(name)} is {' and '.join(f'{_show(key)} in {file}' for key, file in found.items())}"
        for name, found in ids_of.items()
        if len(found) > 1
    ] or [
        f"{_show(key)} is {' and '.join(f'{clip(name)} in {file}' for name, file in found.items())}"
        for key, found in names_of.items()
        if len(found) > 1
    ]
    more = f"; and {count(len(examples) - MOST_LISTED, 'other')}" if len(examples) > MOST_LISTED else ""
    text = f"category ids differ between the files, so classes are matched by name: {'; '.join(examples[:MOST_LISTED])}"
    findings.note("class map", text + more)


def _tell_numbers(keys: Sequence[Key], findings: Findings) -> None:
    if keys and list(keys) != list(range(len(keys))):
        text = f"category ids are {_show_keys(keys)}; they become class numbers 0 to {len(keys) - 1}, in order"
        findings.note("class map", text)


def _order(key: Key) -> tuple[bool, object]:
    return isinstance(key, str), key if isinstance(key, int) else natural_key(key)


def _sort_keys(keys: Iterable[Key]) -> list[Key]:
    return sorted(keys, key=_order)


def _show(key: Key) -> str:
    return str(key) if isinstance(key, int) else clip(key)


def _show_keys(keys: Sequence[Key]) -> str:
    first, last = keys[0], keys[-1]
    if isinstance(first, int) and isinstance(last, int):
        gaps = last - first + 1 - len(keys)
        return f"{first} to {last}" + (f", of which {gaps:,} are missing" if gaps else "")
    return f"{_show(first)} to {_show(last)}"
