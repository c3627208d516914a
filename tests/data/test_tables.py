import sys

import pytest

from zoo.data.tables import read_table
from zoo.errors import DataError, InputError

ROWS = [("a b.png", "cat"), ("c.png", "Hund, groß")]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('image,label\na b.png,cat\nc.png,"Hund, groß"\n', "utf-8"),
        ("image;label\r\na b.png;cat\r\n\r\nc.png;Hund, groß\r\n", "utf-8-sig"),  # Excel, German
        ("image\tlabel\r\na b.png\tcat\r\nc.png\tHund, groß\r\n", "utf-16"),  # Excel, 'Unicode text'
        ('sep=,\r\nimage,label,\r\n a b.png , cat,\r\nc.png,"Hund, groß",\r\n,,\r\n', "utf-8-sig"),
        ("image|label\na b.png|cat\nc.png|Hund, groß", "utf-8"),
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, text, encoding):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("image", "label")
    assert [row.cells for row in table.rows] == ROWS


def test_lines_are_those_of_the_file(tmp_path):
    (tmp_path / "t.csv").write_text('sep=,\nimage,label\n\n"a\nb.png",cat\nc.png,dog,x\nd.png\ne.png,dog\n')
    table = read_table(tmp_path / "t.csv")
    assert [row.line for row in table.rows] == [4, 8]
    assert {line: text.partition(";")[0] for line, text in table.faults.items()} == {
        6: "3 cells for 2 columns",
        7: "1 cells for 2 columns",
    }


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is empty"),
        (b"image,label\n", "has no rows"),
        (b"image,label\na,b\nc,gr\xfc\xdfe\n", "line 3 of .* is not UTF-8"),
        (b'image,label\na,b\nc,"d\n', "line 3 of .* cannot be read"),
        (b"image,image\na,b\n", "two columns 'image'"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, raw, said):
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / "t.csv")


def test_parquet_is_read_with_pyarrow(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": ["a", "b"], "label": [3, None]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert [(row.line, row.cells) for row in table.rows] == [(1, ("a", 3)), (2, ("b", ""))]
    (tmp_path / "t.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_table(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"zoo-finetune\[parquet\]"):
        read_table(tmp_path / "t.parquet")
