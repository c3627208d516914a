"""Annotated images for the benchmarks of detectors: a part of a Pascal VOC folder, as VOC and as YOLO."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd"
SPLITS = ("train", "val")


def copy_part(source: Path, target: Path, *, train: int, val: int, copies: int = 1) -> list[str]:
    """Copy the first images of each split into `target/voc` and `target/yolo`, and return the class names.

    Args:
        source: With `JPEGImages`, `Annotations` and `ImageSets/Main/{train,val}.txt`.
        target: Made.
        train: At most so many images.
        val: Likewise.
        copies: How often each training image is there, under names of its own.
    """
    voc, yolo = target / "voc", target / "yolo"
    names = {
        split: (source / "ImageSets" / "Main" / f"{split}.txt").read_text().split()[:count]
        for split, count in zip(SPLITS, (train, val), strict=True)
    }
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    trees = {
        name: ElementTree.parse(source / "Annotations" / f"{name}.xml") for part in names.values() for name in part
    }
    classes = sorted({str(item.findtext("name")) for tree in trees.values() for item in tree.iter("object")})
    for split, part in names.items():
        numbered = [(name, f"{name}_{copy}") for copy in range(copies if split == "train" else 1) for name in part]
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(new for _, new in numbered) + "\n")
        for kind in ("images", "labels"):
            (yolo / kind / split).mkdir(parents=True, exist_ok=True)
        for name, new in numbered:
            image = source / "JPEGImages" / f"{name}.jpg"
            shutil.copy(image, voc / "JPEGImages" / f"{new}.jpg")
            shutil.copy(image, yolo / "images" / split / f"{new}.jpg")
            shutil.copy(source / "Annotations" / f"{name}.xml", voc / "Annotations" / f"{new}.xml")
            (yolo / "labels" / split / f"{new}.txt").write_text("\n".join(_yolo_lines(trees[name], classes)) + "\n")
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(classes))
    (yolo / "data.yaml").write_text(f"path: {yolo}\ntrain: images/train\nval: images/val\nnames:\n{listed}")
    return classes


def _yolo_lines(tree: "ElementTree.ElementTree[ElementTree.Element]", classes: list[str]) -> list[str]:
    """Return `class x y width height`, the centre and all of it as shares of the image; boxes count pixels from 1."""
    width, height = (float(tree.findtext(f"size/{name}") or 0) for name in ("width", "height"))
    lines = []
    for item in tree.iter("object"):
        left, top, right, bottom = (
            float(item.findtext(f"bndbox/{name}") or 0) for name in ("xmin", "ymin", "xmax", "ymax")
        )
        if right > left and bottom > top:
            x, y = (left + right) / 2 - 1, (top + bottom) / 2 - 1
            numbers = (x / width, y / height, (right - left) / width, (bottom - top) / height)
            lines.append(
                f"{classes.index(str(item.findtext('name')))} " + " ".join(f"{value:.6f}" for value in numbers)
            )
    return lines
