"""YAML without its traps: what is written is what is read.

`1e-3` is a number, and numbers are decimal. Only `true` and `false` are booleans, so `no`, `on` and `off` are texts.
Keys are texts, also `0` and `1e-3`. A key given twice, an anchor, an alias, a tag or deep nesting is a problem with a
line number.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]  # ("lr", "head.") or ("optimizer_params", "betas", 0)

MAX_DEPTH = 20
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")  # int() refuses thousands of digits; they become an infinite float
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the line it is on, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Document:
    """What a YAML text says: its value, the line of every key and list item, and all that is wrong with it."""

    value: Any
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...]


def read_yaml(text: str) -> Document:
    """Read one YAML document into plain values (None, bool, int, float, str, list, dict).

    Args:
        text: The document. An empty one has the value None.

    Returns:
        The document. Nothing is raised for a wrong text: the problems are in it, and its value may then be None.
    """
    lines: dict[KeyPath, int] = {}
    problems: list[Problem] = []
    value = None
    try:
        node = yaml.compose(text, Loader=_Loader)
        value = None if node is None else _plain(node, (), lines, problems)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(Problem(line, f"character {chr(int(error.character))!r} is not allowed. Remove it."))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(Problem(line, f"cannot be parsed as 'key: value' lines: {error.problem}."))
    return Document(value, lines, tuple(problems))


def write_yaml(values: Mapping[str, Any]) -> str:
    """Write plain values so that `read_yaml`, and any other YAML reader, reads the same ones; keys keep their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)


class _Loader(yaml.BaseLoader):
    """Composes nodes and leaves the meaning of their text to `_scalar`."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        wrong = None
        if isinstance(event, yaml.AliasEvent):
            wrong = f"alias '*{event.anchor}'; write the value itself"
        elif event.anchor is not None:
            wrong = f"anchor '&{event.anchor}'; remove it"
        elif event.tag is not None:
            wrong = f"tag '{event.tag}'; remove it"
        elif self.depth >= MAX_DEPTH:
            wrong = f"nested more than {MAX_DEPTH} deep"
        if wrong:
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes a text that any YAML reader, or `_scalar`, would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Escape what does not print; unusual line ends would else come back as spaces."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def _plain(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[Problem]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
        return [_plain(item, (*path, index), lines, problems) for index, item in enumerate(node.value)]
    values: dict[str, Any] = {}
    for key_node, item in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem(line, "a list or mapping is used as a key; expected a name."))
            continue
        here = (*path, key_node.value)
        if here in lines:
            name = ".".join(map(str, here))
            problems.append(
                Problem(line, f"{name} is a duplicate key, first on line {lines[here]}. Remove one of them.")
            )
            continue
        lines[here] = line
        values[key_node.value] = _plain(item, here, lines, problems)
    return values


def _scalar(node: yaml.ScalarNode) -> Hashable:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
