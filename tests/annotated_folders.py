"""Folders of Pascal VOC, COCO and YOLO for tests; their images are empty files, as readers of boxes open none."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from zoo.tasks.detection.annotations import BoxSource

Content: TypeAlias = str | bytes | dict[str, Any]

BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd"


def write_files(root: Path, files: Mapping[str, Content]) -> Path:
    """Write texts, bytes, or objects as JSON over several lines."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content, indent=1)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    root.mkdir(parents=True, exist_ok=True)
    return root


def touch(root: Path, *names: str) -> Path:
    return write_files(root, dict.fromkeys(names, b""))


def voc_xml(filename: str, *objects: Sequence[object], size: tuple[int, int] | None = (48, 64), extra: str = "") -> str:
    """Return an xml of objects `(name, xmin, ymin, xmax, ymax)`; the first begins on line 4, each takes 10 lines."""
    sides = "" if size is None else f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
    return "\n".join(
        [
            "<annotation>",
            f"<filename>{filename}</filename>",
            sides,
            *(_object(*values, extra=extra) for values in objects),
            "</annotation>\n",
        ]
    )


def _object(name: object, *box: object, extra: str) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    return "\n".join(
        [
            "<object>",
            f"<name>{name}</name>",
            f"<truncated>0</truncated>{extra}",
            "<bndbox>",
            *(f"<{side}>{value}</{side}>" for side, value in sides),
            "</bndbox>",
            "</object>",
        ]
    )


def coco(
    images: Iterable[Mapping[str, Any]], annotations: Iterable[Mapping[str, Any]], categories: Iterable[Any] = ()
) -> dict[str, Any]:
    return {"info": {}, "images": [*images], "annotations": [*annotations], "categories": [*categories]}


def told(source: BoxSource | None) -> list[tuple[str, str, str, str]]:
    """Return level, kind, split and place of all findings."""
    assert source is not None
    return [(finding.level, finding.kind, finding.split, finding.place) for finding in source.findings]


def names(source: BoxSource) -> dict[str, list[str]]:
    """Return the names of the images of each split."""
    return {split: [image.name for image in part.images] for split, part in source.splits.items()}


def contents(source: BoxSource | None) -> dict[str, dict[str, list[tuple[object, list[float]]]]]:
    """Return by split and image the class and the box of each object."""
    assert source is not None
    return {
        name: {
            image.name: [(key, box.round(9).tolist()) for key, box in zip(image.keys, image.boxes, strict=True)]
            for image in split.images
        }
        for name, split in source.splits.items()
    }
