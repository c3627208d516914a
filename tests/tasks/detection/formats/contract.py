"""What every format of boxes has to do; a format's test file subclasses this and says what its files look like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotated_folders import Content, touch, write_files
from image_files import write_image
from zoo.errors import DataError
from zoo.tasks.detection.annotations import BoxSource
from zoo.tasks.detection.drawing import import_supervision
from zoo.tasks.detection.formats import list_formats, read_box_folder

DAMAGED = "many"  # stands where a coordinate should


class FormatContract:
    """Checks that need samples of the format.

    Attributes:
        name: The format's.
        image: Where its image is.
        annotation: The file with the boxes.
        lines_above: From the line that is told, where an annotation begins, to that of the damaged side.
    """

    name: str
    image: str
    annotation: str
    lines_above = 0

    def files(self, image: str, side: object = 20) -> dict[str, Content]:
        """Return the files of a data set of one image and two cats on it, the second of which has such a side."""
        raise NotImplementedError

    def read(self, root: Path) -> BoxSource | None:
        [known] = [known for known in list_formats() if known.name == self.name]
        return known.read(root)

    def save_by_supervision(self, dataset: Any, root: Path) -> None:
        """Let supervision write its data set in this format."""
        raise NotImplementedError

    def test_what_supervision_writes_is_read(self, tmp_path: Path) -> None:
        """It numbers categories of COCO from 1, and rounds shares of the sides to 5 digits."""
        supervision = import_supervision()
        paths = [str(write_image(tmp_path / "in" / f"{number}.png", (64, 48), number)) for number in range(2)]
        boxes = np.array([[0, 0, 64, 48], [3, 4, 5, 6]], np.float32)
        found = supervision.Detections(xyxy=boxes, class_id=np.array([1, 0]))
        notes = {paths[0]: found, paths[1]: supervision.Detections.empty()}
        self.save_by_supervision(supervision.DetectionDataset(["dog", "cat"], paths, notes), tmp_path / "out")
        source = read_box_folder(tmp_path / "out")
        full, bare = (image for split in source.splits.values() for image in split.images)
        assert [Path(image.name).name for image in (full, bare)] == ["0.png", "1.png"]
        assert ([source.names[key] for key in full.keys], bare.keys) == (["cat", "dog"], ())
        scale = [64, 48, 64, 48] if full.is_relative else 1
        np.testing.assert_allclose(full.boxes * scale, boxes, atol=64 * 1e-5)

    def test_it_is_found_by_its_folder(self, tmp_path: Path) -> None:
        source = read_box_folder(touch(write_files(tmp_path, self.files(self.image)), self.image))
        assert source.form == self.name
        [image] = [image for split in source.splits.values() for image in split.images]
        assert [source.names[key] for key in image.keys] == ["cat", "cat"]
        assert image.file == source.find_file() == self.annotation

    def test_a_coordinate_that_is_no_number_is_told_with_file_and_line(self, tmp_path: Path) -> None:
        source = self.read(touch(write_files(tmp_path, self.files(self.image, DAMAGED)), self.image))
        assert source is not None
        lines = (tmp_path / self.annotation).read_text().splitlines()
        [line] = [number for number, text in enumerate(lines, start=1) if DAMAGED in text]
        [found] = [finding for finding in source.findings if finding.level == "error"]
        assert found.place == f"{self.annotation}:{line - self.lines_above}"
        [image] = [image for split in source.splits.values() for image in split.images]
        assert (len(image.keys), image.lost) == (1, 1)

    @pytest.mark.parametrize("damage", ["cut short", "no text"])
    def test_a_damaged_file_is_told(self, tmp_path: Path, damage: str) -> None:
        root = touch(write_files(tmp_path, self.files(self.image)), self.image)
        whole = (root / self.annotation).read_bytes()
        (root / self.annotation).write_bytes(whole[: len(whole) - 8] if damage == "cut short" else b"\xff\x00\xfe" * 9)
        try:
            told = {finding.file for finding in read_box_folder(root).findings if finding.level == "error"}
        except DataError as error:
            told = {self.annotation} if self.annotation in str(error) else set()
        assert self.annotation in told

    def test_no_path_leads_out_of_the_folder(self, tmp_path: Path) -> None:
        secret = touch(tmp_path, "secret.jpg") / "secret.jpg"
        for number, name in enumerate(("../secret.jpg", "../../secret.jpg", str(secret), "x/../../secret.jpg")):
            root = tmp_path / f"data{number}"
            source = self.read(touch(write_files(root, self.files(name)), "a.jpg"))
            splits = [] if source is None else list(source.splits.values())
            read = [split.reader(place) for split in splits for place in range(len(split.images))]
            assert str(secret) not in [str(Path(path).resolve()) for path in read]
