"""Tables as files, CSV and Parquet: their columns, and their rows with the lines that they stand in."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import DataError, InputError
from zoo.files import read_regular

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
IMAGE_NAMES = ("image", "img", "filename", "file", "imagepath", "filepath", "path", "imagefile", "imagename")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")
GROUP_COLUMNS = ("group", "groupid", "groups")
EXPECTED = "a first line with the names of the columns, among them 'image', such as image,label or image,label,split"
MAX_BYTES = 2_000_000_000
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # as Excel writes them


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        line: Where it begins in the file, from 1; of a Parquet file its number.
        cells: Texts without blanks around them; of a Parquet file any value, and an empty text for none.
    """

    line: int
    cells: tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        path: The file.
        columns: As they are called in the file.
        rows: In the order of the file, without blank ones and those with faults.
        faults: What is wrong with other rows, by line.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    faults: Mapping[int, str] = field(default_factory=dict)

    def place(self, line: int) -> str:
        """Return what to call a row in a message."""
        return f"{self.path.name} {'row' if self.path.suffix.lower() == '.parquet' else 'line'} {line}"

    def find_column(self, usual: Sequence[str]) -> int | None:
        """Return the place of the column with the first of these names that is there; None if there is none.

        Args:
            usual: In lower case, without blanks, hyphens and underscores, which do not count.
        """
        known = [_simplify(column) for column in self.columns]
        return next((known.index(name) for name in usual if name in known), None)

    def get_column(self, usual: Sequence[str], what: str) -> int:
        """Return the place of the column with the first of these names that is there.

        Raises:
            DataError: There is none.
        """
        if (found := self.find_column(usual)) is None:
            raise DataError(
                f"{self.path} has no column of {what}; its columns are {', '.join(map(repr, self.columns))}. Rename "
                f"one of them to {usual[0]!r}."
            )
        return found


def is_table(path: Path) -> bool:
    """Whether a path has the suffix of a table."""
    return path.suffix.lower() in TABLE_SUFFIXES


def read_table(path: Path, *, may_be_empty: bool = False) -> Table:
    """Read a table whose columns are named in its first line.

    CSV files may be separated by commas, semicolons, tabs or bars, and may begin with a byte order mark or with
    `sep=;`, as Excel writes them.

    Args:
        path: The file.
        may_be_empty: Whether the line of names may be all of it.

    Raises:
        DataError: It cannot be read, or has no such line.
    """
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not table.rows and not table.faults and not may_be_empty:
        raise DataError(f"{path} has no rows; expected {EXPECTED}, and a line for each image.")
    if twice := next((name for name in table.columns if table.columns.count(name) > 1), None):
        raise DataError(f"{path} has two columns {twice!r}. Rename one of them.")
    return table


def _read_csv(path: Path) -> Table:
    text = _decode(path)
    skipped = 0
    if said := re.match(r"sep=(.)\r?\n", text):  # Excel's own way to say it
        text, skipped = text[said.end() :], 1
    lines = _parse(text, said[1] if said else _find_delimiter(text), path, skipped)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty; expected {EXPECTED}.")
    columns = header.cells
    while columns and not columns[-1]:  # Excel writes the empty columns at the right, too
        columns = columns[:-1]
    rows, faults = [], {}
    for row in lines:
        if any(row.cells[len(columns) :]) or len(row.cells) < len(columns):
            faults[row.line] = f"{len(row.cells)} cells for {len(columns)} columns; quote cells that hold the separator"
        else:
            rows.append(Row(row.line, row.cells[: len(columns)]))
    return Table(path, columns, tuple(rows), faults)


def _decode(path: Path) -> str:
    try:
        raw = read_regular(path, max_bytes=MAX_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"line {line} of {path} is not UTF-8. In Excel, save it as 'CSV UTF-8'; or convert it: iconv -f cp1252 -t "
            f"utf-8 {path.name} > new.csv"
        ) from error


def _find_delimiter(text: str) -> str:
    """Return what separates the names of the columns: what leaves one of the images, and most columns."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def rate(delimiter: str) -> tuple[bool, int]:
        names = [_simplify(name) for name in next(csv.reader([first], delimiter=delimiter), [])]
        return any(name in names for name in IMAGE_NAMES), len(names)

    return max(_DELIMITERS, key=rate)


def _parse(text: str, delimiter: str, path: Path, skipped: int) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = skipped + 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield Row(line, tuple(map(str.strip, cells)))
            line = reader.line_num + skipped + 1
    except csv.Error as error:
        raise DataError(f"line {line} of {path} cannot be read: {error}. Check its quotes.") from error


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise InputError(
            f"reading {path} needs pyarrow. Install it: pip install 'zoo-finetune[parquet]', or save the table as CSV."
        ) from error
    try:
        found = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.") from error
    values = [["" if cell is None else cell for cell in column.to_pylist()] for column in found.columns]
    rows = (Row(number, cells) for number, cells in enumerate(zip(*values, strict=True), start=1))
    return Table(path, tuple(found.column_names), tuple(rows))


def _simplify(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())
