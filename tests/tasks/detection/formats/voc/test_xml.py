from xml.parsers.expat import ExpatError

import pytest

from annotated_folders import voc_xml
from zoo.errors import InputError
from zoo.tasks.detection.formats.voc.xml import parse_xml


def test_what_is_used_of_an_xml() -> None:
    xml = parse_xml(voc_xml("a b.jpg", ("cat", 1, 2, 30, 40), ("dog & co".replace("&", "&amp;"), 5, 6, 7, 8)).encode())
    assert xml.filename == "a b.jpg"
    assert xml.size == {"width": "64", "height": "48"}
    assert [item.line for item in xml.objects] == [4, 14]
    assert xml.objects[0].texts == {"name": "cat", "xmin": "1", "ymin": "2", "xmax": "30", "ymax": "40"}
    assert xml.objects[0].lines == {"name": 5, "xmin": 8, "ymin": 9, "xmax": 10, "ymax": 11}
    assert xml.objects[1].texts["name"] == "dog & co"
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    xml = parse_xml(voc_xml("a.jpg", ("person", 1, 2, 3, 4), extra=part).encode())
    assert len(xml.objects) == 1
    assert (xml.objects[0].texts["name"], xml.objects[0].texts["xmin"]) == ("person", "1")
    text = (
        "<annotation><filename>a</filename><filename>b</filename><source><filename>c</filename></source>"
        "<object><name>x</name><name>y</name></object><name>z</name><bndbox><xmin>1</xmin></bndbox></annotation>"
    )
    xml = parse_xml(text.encode())
    assert (xml.filename, [item.texts for item in xml.objects]) == ("a", [{"name": "x"}])


def test_other_encodings_are_read_if_they_are_declared() -> None:
    text = '<?xml version="1.0" encoding="{}"?><annotation><filename>é.jpg</filename></annotation>'
    for encoding in ("utf-8", "latin-1", "utf-16", "windows-1252"):
        assert parse_xml(text.format(encoding).encode(encoding)).filename == "é.jpg"
    with pytest.raises(ExpatError):
        parse_xml("<annotation><filename>é.jpg</filename></annotation>".encode("latin-1"))
    with pytest.raises(LookupError, match="nonsense"):
        parse_xml(text.format("nonsense").encode())


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("gb2312", "猫"),
        ("GBK", "貓"),
        ("gb18030", "貓"),
        ("Big5", "貓"),
        ("Shift_JIS", "ネコ"),
        ("EUC-JP", "ネコ"),
        ("euc-kr", "고양이"),
    ],
)
def test_encodings_of_several_bytes(encoding: str, word: str) -> None:
    text = (
        f"<?xml version='1.0' encoding='{encoding}'?>\n<annotation>\n<object><name>{word}</name></object></annotation>"
    )
    item = parse_xml(text.encode(encoding)).objects[0]
    assert (item.texts, item.line) == ({"name": word}, 3)
    with pytest.raises(
        InputError,
        match=rf"it is not in its declared encoding {encoding.lower()}\. Save it as UTF-8",
    ):
        parse_xml(text.encode(encoding).replace(b"</name>", b"\x81\x20</name>"))


def test_xml_that_would_do_more_is_refused() -> None:
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{lol}]><annotation><filename>&l9;</filename></annotation>'
    with pytest.raises(InputError, match=r"declares the entity 'l0', which is not allowed in annotations"):
        parse_xml(bomb.encode())
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
    with pytest.raises(InputError, match="declares the entity 'x'"):
        parse_xml(outside.encode())
    with pytest.raises(InputError, match=r"root tag is <project>; expected <annotation>"):
        parse_xml(b"<project><annotation/></project>")
    xml = parse_xml(b"<annotation>" + b"<a>" * 50_000 + b"</a>" * 50_000 + b"<filename>x</filename></annotation>")
    assert xml.filename == "x"


@pytest.mark.parametrize(("text", "line"), [("", 1), ("<annotation>\n<object>\n</annotation>", 3), ("[1]", 1)])
def test_what_is_no_xml(text: str, line: int) -> None:
    with pytest.raises(ExpatError) as caught:
        parse_xml(text.encode())
    assert caught.value.lineno == line
