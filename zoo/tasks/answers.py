"""What the command `zoo predict` hands to a task, and how the task's answers are printed and written, one by one."""

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from zoo._text import echo, warn
from zoo.errors import InputError
from zoo.files import dump_json, make_folder, open_whole, to_path
from zoo.progress import Progress

FILES: Mapping[str, str] = {  # what `--save` writes besides drawn images, and where
    "json": "predictions.json",
    "csv": "predictions.csv",
    "coco": "predictions.coco.json",
    "yolo": "labels",
    "crops": "crops",
}

Write: TypeAlias = Callable[[str], object]
Keep: TypeAlias = Callable[[Any], object]
Saver: TypeAlias = Callable[[Path], AbstractContextManager[Keep]]


@dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What was said on the command line; None where nothing was.

    Attributes:
        out: A folder for what is written.
        save: What to write there: `images`, or a key of `FILES`.
        coco_ids: A COCO file with the ids to write.
        conf: The least score.
        iou: The overlap from which two boxes are one thing.
        top_k: Names per image.
        as_json: Print the answers as data.
        total: Images that were given; 0 if nobody knows, as of videos.
        is_stopped: Tells whether to end now, with what there is.
        options: Of `predict`, for a model of any task.
    """

    out: Path | None
    save: tuple[str, ...]
    coco_ids: Path | None
    conf: float | None
    iou: float | None
    top_k: int | None
    as_json: bool
    total: int
    is_stopped: Callable[[], bool]
    options: Mapping[str, Any]


class JsonList:
    """Writes a list as JSON, entry by entry.

    Args:
        write: Is given lines, without their ends.

    Attributes:
        count: Entries so far.
    """

    def __init__(self, write: Write) -> None:
        self.write, self.count, self._last = write, 0, "["

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write an entry."""
        self.write(self._last + "," * bool(self.count))
        self.count, self._last = self.count + 1, textwrap.indent(dump_json(entry, indent=1), " ")

    def close(self) -> None:
        """Write the end."""
        if self.count:
            self.write(self._last)
        self.write("]" if self.count else "[]")


@contextmanager
def printing_answers(flags: PredictFlags) -> Iterator[Callable[[Any, Mapping[str, Any]], None]]:
    """Yield what prints an answer when it comes, as a line or as data, above a bar that shows how far the work is.

    The end of the data is printed after an error, too: what was found is found.
    """
    show, done = Progress(err=flags.as_json), 0
    records = JsonList(lambda line: echo(line, lines=True))
    with show.counting("predicting", flags.total, "img/s") as count:

        def tell(answer: Any, record: Mapping[str, Any]) -> None:
            nonlocal done
            done += 1
            if flags.as_json:
                records.add(record)
            else:
                show.log(str(answer))
            count(done, flags.total)

        try:
            yield tell
        finally:
            if flags.as_json:
                records.close()


@contextmanager
def saving_answers(flags: PredictFlags, savers: Mapping[str, Saver]) -> Iterator[Keep]:
    """Yield what writes an answer in each of the ways that the flags name; files are whole, also after an error.

    Args:
        flags: A folder, and what to write there.
        savers: By the names of the flags; those that it lacks are written by somebody else.
    """
    if flags.out is None:
        yield lambda answer: None
        return
    folder, count = _open_answers(flags.out, flags.save), 0
    try:
        with ExitStack() as stack:
            ways = [stack.enter_context(savers[name](folder / FILES[name])) for name in flags.save if name in savers]

            def save(answer: Any) -> None:
                nonlocal count
                for way in ways:
                    way(answer)
                count += 1

            yield save
    except BaseException:
        if count:
            where = next((folder / FILES[name] for name in flags.save if name in FILES), folder)
            warn(f"stopped early; {count:,} predictions are saved in {where}")
        raise
    *names, last = [*(FILES[name] for name in flags.save if name in FILES), *["images"] * ("images" in flags.save)]
    echo(f"written to {folder}: {' and '.join([', '.join(names), last] if names else [last])}", err=flags.as_json)


@contextmanager
def writing_json(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write records into a file, as a list; an error before the first one leaves no file."""
    with writing_lines(path) as write:
        records = JsonList(write)
        try:
            yield records.add
        except BaseException:
            if records.count:
                records.close()
            raise
        records.close()


@contextmanager
def writing_rows(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Write rows of a table (CSV) into a file, below the names of their columns."""
    with writing_lines(path) as write:

        def add(row: Sequence[Any]) -> None:
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="").writerow(row)
            write(text.getvalue())

        add(columns)
        yield add


@contextmanager
def writing_lines(path: Path) -> Iterator[Write]:
    """Write lines into a file; it appears under its name when the block ends, with what there is also by an error."""
    stopped: BaseException | None = None
    with open_whole(path) as file:
        try:
            yield lambda line: file.write(f"{line}\n".encode(errors="backslashreplace"))
        except BaseException as error:
            if not file.tell():
                raise
            stopped = error
    if stopped is not None:
        raise stopped


def _open_answers(out: Path, save: Sequence[str]) -> Path:
    """Return the folder for what is written, made if need be; what an earlier command wrote is kept."""
    folder = make_folder(to_path(out))
    for file in (folder / FILES[name] for name in save if name in FILES):
        if file.exists():
            raise InputError(f"{file} already exists. Choose another folder, or remove it.")
    return folder
