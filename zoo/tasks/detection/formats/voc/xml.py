"""One xml of Pascal VOC: an image's file name, its size, and its objects; nothing the file refers to is looked up."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.parsers import expat

from zoo.errors import InputError

# What expat cannot read: encodings in which a character may take several bytes, by the name that files declare.
CODECS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "cp950",
    "shift_jis": "cp932",
    "euc-jp": "euc_jp",
    "euc-kr": "cp949",
}
DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")


@dataclass
class VocObject:
    """One object.

    Attributes:
        line: On which it begins, from 1.
        texts: By tag: `name`, `difficult`, and what is in `bndbox`; the first where there are two.
        lines: Of each of them.
    """

    line: int
    texts: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass
class VocXml:
    """What is used of an xml.

    Attributes:
        filename: Of the image; empty if there is none.
        size: `width` and `height`, as they are written.
        objects: In their order; the parts of a body that some have are none.
    """

    filename: str = ""
    size: dict[str, str] = field(default_factory=dict)
    objects: list[VocObject] = field(default_factory=list)


def parse_xml(data: bytes) -> VocXml:
    """Parse an xml.

    Raises:
        ExpatError: It is not XML.
        LookupError: Its encoding does not exist.
        InputError: It declares entities, which could grow without bounds, is not an annotation, or not in the encoding
            that it declares.
    """
    xml = VocXml()
    data, encoding = _recode(data)
    parser = expat.ParserCreate(encoding)
    tags: list[str] = []
    begun: list[int] = []
    texts: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        tags.append(tag)
        begun.append(parser.CurrentLineNumber)
        texts.clear()
        if len(tags) == 1 and tag != "annotation":
            raise InputError(f"its root tag is <{tag[:40]}>; expected <annotation>")
        if tags == ["annotation", "object"]:
            xml.objects.append(VocObject(parser.CurrentLineNumber))

    def end(_: str) -> None:
        _keep(xml, tags, "".join(texts).strip(), begun.pop())
        tags.pop()
        texts.clear()

    def refuse(name: str, *_: object) -> None:
        raise InputError(f"it declares the entity {name[:40]!r}, which is not allowed in annotations")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = texts.append
    parser.EntityDeclHandler = refuse
    parser.Parse(data, True)
    return xml


def _keep(xml: VocXml, tags: Sequence[str], text: str, line: int) -> None:
    """Keep the text of a tag if it is of use."""
    match tags:
        case ["annotation", "filename"]:
            xml.filename = xml.filename or text
        case ["annotation", "size", side]:
            xml.size.setdefault(side, text)
        case ["annotation", "object", ("name" | "difficult") as tag] | ["annotation", "object", "bndbox", tag]:
            xml.objects[-1].texts.setdefault(tag, text)
            xml.objects[-1].lines.setdefault(tag, line)


def _recode(data: bytes) -> tuple[bytes, str | None]:
    """Return the text in an encoding that expat reads, and which one that is if it is not the declared one."""
    declared = DECLARED.match(data)
    name = declared[1].decode().lower() if declared else ""
    if name not in CODECS:
        return data, None
    try:
        return data.decode(CODECS[name]).encode(), "utf-8"
    except UnicodeDecodeError as error:
        raise InputError(f"it is not in its declared encoding {name}. Save it as UTF-8") from error
