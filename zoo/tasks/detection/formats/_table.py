"""Tables as Hugging Face data sets are: a column of images, and one of objects, or one of boxes and one of labels.

The library `datasets` is never imported; its objects are known by what they can do.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.data import IMAGE_COLUMNS, ColumnReader
from zoo.errors import DataError, InputError
from zoo.tasks.detection.annotations import Finding
from zoo.tasks.detection.formats._marks import BOX_KEYS, CROWD_KEYS, LABEL_KEYS, Marks, find_key, parse_marks

OBJECT_COLUMNS = ("objects", "object", "annotations")
UNCLEAR = "boxes"  # a field that holds corners in torch's data sets, but width and height in some tables
FEW = 0.05  # share of boxes that may contradict what all others say
EXPECTED = (
    "a column 'objects' with the fields 'bbox' (x, y, width, height in pixels) and 'category' or 'label', or columns "
    "'bbox' and 'label'"
)


class BoxTable:
    """The columns of a Hugging Face data set.

    Attributes:
        classes: The names of the class numbers; None if the labels are names, or numbers without names.
        images: Reads the images.
        is_encoded: Whether images come as the bytes of files.
        written: How the boxes are written, XYWH or XYXY, as `settle_form` has decided.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        """Find the columns.

        Args:
            dataset: It has `features` and `column_names`.
            name: What to call it in messages.

        Raises:
            DataError: There are none, or it is unclear which.
        """
        if (getattr(dataset, "format", None) or {}).get("type") == "custom":
            raise DataError(
                f"{name} has its own transform (set_transform or with_transform), which would be ignored. Pass "
                "dataset.with_format(None); zoo applies the model's preprocessing."
            )
        features: dict[str, Any] = dict(dataset.features)
        image = _find_images(features, name)
        column = _find_objects(features, name)
        fields = features if column is None else _fields(features[column])
        self._box, self._label = (_find_field(fields, keys, column, name) for keys in (BOX_KEYS, LABEL_KEYS))
        self._crowd = find_key(fields, CROWD_KEYS)
        self.classes = _class_names(fields[self._label])
        self.written = "XYWH"
        plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
        if column is not None:
            self._objects: Any = plain[column]
        else:
            self._objects = _Rows({key: plain[key] for key in self._list_fields()})
        rows = plain.select_columns([image]) if hasattr(plain, "select_columns") else plain
        kind = features[image]
        self.is_encoded = type(kind).__name__ == "Image" and hasattr(rows, "cast_column")
        if self.is_encoded:  # decoded here, as files are: in threads, and with a name where it fails
            rows = rows.cast_column(image, type(kind)(decode=False))
        self.images = ColumnReader(rows, image)

    @property
    def is_unclear(self) -> bool:
        """Whether the name of the field does not tell how boxes are written."""
        return self._box == UNCLEAR

    def read(self) -> Iterator[Marks | str]:
        """Yield the boxes of each row, or why they cannot be read."""
        for objects in self._objects:
            try:
                columns = self._read_row(objects)
                crowd = columns[self._crowd] if self._crowd else None
                yield parse_marks(columns[self._box], columns[self._label], crowd, written=self.written)
            except InputError as error:
                yield str(error)

    def count_boxes(self) -> tuple[int, int]:
        """Return how many boxes cannot be x1, y1, x2, y2, and how many there are."""
        wrong = total = 0
        for objects in self._objects:
            try:
                columns = self._read_row(objects)
                boxes = parse_marks(columns[self._box], [0] * len(columns[self._box]), None).boxes
            except InputError:
                continue
            wrong += int((boxes[:, 2:] <= boxes[:, :2]).any(axis=1).sum())
            total += len(boxes)
        return wrong, total

    def _read_row(self, objects: Any) -> dict[str, Any]:
        """Return the fields of a row, each as a list."""
        if isinstance(objects, Mapping):
            return {key: [] if objects.get(key) is None else objects[key] for key in self._list_fields()}
        return {key: [entry.get(key) for entry in objects or ()] for key in self._list_fields()}

    def _list_fields(self) -> list[str]:
        return [key for key in (self._box, self._label, self._crowd) if key is not None]


class _Rows:
    """Rows of flat columns, as mappings of lists; a row with one box may have it, and its label, without a list."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for values in zip(*self._columns.values(), strict=True):
            row = dict(zip(self._columns, values, strict=True))
            is_single = any(isinstance(value, (int, str)) for value in values)
            yield {key: [value] for key, value in row.items()} if is_single else row


def settle_form(tables: Mapping[str, BoxTable]) -> list[Finding]:
    """Decide over all splits how boxes are written whose field is called `boxes`, and say so.

    They are corners, as that name means elsewhere, unless boxes contradict it: the second corner of a box lies right of
    and below the first.
    """
    unclear = [table for table in tables.values() if table.is_unclear]
    counts = [table.count_boxes() for table in unclear]
    wrong, total = sum(wrong for wrong, _ in counts), sum(total for _, total in counts)
    if not total:
        return []
    are_corners = wrong <= FEW * total
    for table in unclear:
        table.written = "XYXY" if are_corners else "XYWH"
    text = f"the field {UNCLEAR!r} is read as x, y, width, height: {wrong:,} of {total:,} boxes cannot be corners"
    if are_corners:
        text = f"the field {UNCLEAR!r} is read as x1, y1, x2, y2; if it is x, y, width, height, rename it to 'bbox'"
    return [Finding("boxes in an unclear format", "warning", "", "", None, text)]


def _find_images(features: Mapping[str, Any], name: str) -> str:
    """Return the one column of images, or else the one with a usual name."""
    found = [column for column, kind in features.items() if type(kind).__name__ == "Image"]
    found = found or [column for column in features if column.lower() in IMAGE_COLUMNS]
    if len(found) > 1:
        found = [column for column in IMAGE_COLUMNS if column in found][:1] or found
    if len(found) != 1:
        raise DataError(
            f"{name} has {'several columns' if found else 'no column'} of images; its columns are "
            f"{_list_columns(features)}. Expected one named 'image'. Use dataset.rename_column(..., 'image')."
        )
    return found[0]


def _find_objects(features: Mapping[str, Any], name: str) -> str | None:
    """Return the column of objects; None if boxes and labels are columns of their own."""
    found = [column for column in features if column.lower() in OBJECT_COLUMNS]
    if len(found) > 1:
        found = [column for column in OBJECT_COLUMNS if column in found][:1] or found
    if len(found) == 1:
        return found[0]
    if not found and find_key(features, BOX_KEYS) and find_key(features, LABEL_KEYS):
        return None
    raise DataError(
        f"{name} has {'several columns' if found else 'no column'} of boxes; its columns are "
        f"{_list_columns(features)}. Expected {EXPECTED}. Use dataset.rename_column."
    )


def _find_field(fields: Mapping[str, Any], usual: Sequence[str], column: str | None, name: str) -> str:
    found = find_key(fields, usual)
    if found is None:
        raise DataError(
            f"the column {column!r} of {name} has the fields {', '.join(fields) or '(none)'}; expected 'bbox' (x, y, "
            "width, height in pixels) and 'category' or 'label'."
        )
    return found


def _list_columns(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())


def _fields(feature: Any) -> Mapping[str, Any]:
    """Return the fields of an object, whether the column is a list of mappings or a mapping of lists."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return inner if isinstance(inner, Mapping) else {}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    while isinstance(feature, list) or hasattr(feature, "feature"):
        feature = feature[0] if isinstance(feature, list) else feature.feature
    names = getattr(feature, "names", None)
    return tuple(names) if names else None
