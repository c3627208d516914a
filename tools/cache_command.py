"""`zoo cache`: what features of frozen backbones are kept on this machine, and their removal."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo._text import echo

from .command_line import Command, Group
from .listing import AsJson, print_json, print_table

app = typer.Typer(
    name="cache",
    cls=Group,
    help="List and remove cached features of frozen backbones.",
    no_args_is_help=True,
)

DAY_SECONDS = 86_400
RECENT_SECONDS = 600  # a file that is being written changes more often
SHORT = 12  # digits of a key that are shown


@dataclass(frozen=True)
class KeptFolder:
    """Features that are kept.

    Attributes:
        folder: Named by the first 32 digits of their key.
        about: What was written down about them; maybe nothing.
        size: In bytes.
        created: Seconds since 1970.
        used: The last time, likewise.
    """

    folder: Path
    about: dict[str, Any]
    size: int
    created: float
    used: float


def find_kept(root: Path) -> list[KeptFolder]:
    """Return what is kept below a folder, the last used first."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if re.fullmatch(r"[0-9a-f]{32}", path.name)]
    found = [_look_into(path) for path in folders if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda kept: (-kept.used, kept.folder.name))


def choose(
    found: Sequence[KeptFolder], keys: Sequence[str], *, older_than: float | None, everything: bool
) -> list[KeptFolder]:
    """Return those that are meant.

    Args:
        found: All there are.
        keys: Beginnings of their keys.
        older_than: Days for which they were not used.
        everything: All of them.

    Raises:
        InputError: Nothing is chosen, more than one way is used, or a key fits none or several.
    """
    from zoo.errors import InputError

    if bool(keys) + (older_than is not None) + everything != 1:
        raise InputError("zoo cache clear expects keys, --older-than DAYS or --all: one of the three.")
    if older_than is not None and not older_than >= 0:
        raise InputError(f"--older-than is {older_than:g} days; expected 0 or more.")
    if keys:
        return list({kept.folder: kept for kept in (_find_one(found, key) for key in keys)}.values())
    limit = time.time() - (older_than or 0) * DAY_SECONDS
    return [kept for kept in found if everything or kept.used <= limit]


def remove(kept: KeptFolder) -> bool:
    """Remove files, then their folder; a run that reads them goes on, for it has mapped them into memory.

    Returns:
        Whether all of it is gone: what another process is writing now stays.
    """
    for path in _files(kept.folder):
        with suppress(OSError):
            if path.suffix != ".tmp" or time.time() - path.stat().st_mtime > RECENT_SECONDS:
                path.unlink()
    with suppress(OSError):
        kept.folder.rmdir()
    return not kept.folder.exists()


@app.command("list", cls=Command)
def list_(as_json: AsJson = False) -> None:
    """List cached features: model, images, size, last use.

    \b
    Examples:
      zoo cache list
      zoo cache list --json
    """  # noqa: D301
    from zoo.engine.frozen import features_folder

    found = find_kept(features_folder())
    if as_json:
        print_json([_collect(kept) for kept in found])
        return
    if not found:
        echo(f"no features are cached in {features_folder()}")
        return
    secondary = ("made", "views", "images", "last used")
    print_table(list(map(_describe, found)), "cached features", secondary=secondary, in_full="zoo cache list --json")
    echo(f"{_megabytes(found)} in {features_folder()}. Remove some: zoo cache clear KEY")


@app.command(cls=Command)
def clear(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys that zoo cache list shows, or how they begin.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Remove what was not used for so many days.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
) -> None:
    """Remove cached features.

    A run that uses them goes on; the next run computes them again.

    \b
    Examples:
      zoo cache clear 3f9c2a
      zoo cache clear --older-than 30 --dry-run
      zoo cache clear --all
    """  # noqa: D301
    from zoo.engine.frozen import features_folder

    chosen = choose(find_kept(features_folder()), keys or (), older_than=older_than, everything=everything)
    for kept in chosen:
        gone = dry_run or remove(kept)
        shown = _describe(kept)
        left = "" if gone else "; not all of it: another process is writing there, or it is not allowed"
        echo(f"{'would remove' if dry_run else 'removed'} {shown['key']} ({shown['model']}, {shown['size']}){left}")
    echo(f"{len(chosen)} cached features, {_megabytes(chosen)}" if chosen else "nothing to remove")


def _look_into(folder: Path) -> KeptFolder:
    from zoo.engine.frozen import ABOUT, read_about

    facts = []
    for path in _files(folder):
        with suppress(OSError):  # it may be removed at this moment
            status = path.lstat()
            facts.append((path.name, status.st_size, status.st_mtime))
    about = read_about(folder)
    times = [changed for _, _, changed in facts] or [0.0]
    created = about.get("created")
    return KeptFolder(
        folder,
        about,
        sum(size for _, size, _ in facts),
        float(created) if isinstance(created, (int, float)) else min(times),
        next((changed for name, _, changed in facts if name == ABOUT), max(times)),
    )


def _files(folder: Path) -> list[Path]:
    """Return what is in a folder and is no folder itself; of links, the links."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_symlink() or not path.is_dir())
    except OSError:
        return []


def _find_one(found: Sequence[KeptFolder], key: str) -> KeptFolder:
    from zoo.errors import InputError

    fitting = [kept for kept in found if key and kept.folder.name.startswith(key[:32].lower())]
    if len(fitting) != 1:
        few = ", ".join(kept.folder.name[:SHORT] for kept in fitting[:5])
        what = f"fits {len(fitting)} of the cached features: {few}" if fitting else "fits no cached features"
        raise InputError(f"the key {key!r:.80} {what}; expected the beginning of one. zoo cache list names all.")
    return fitting[0]


def _collect(kept: KeptFolder) -> dict[str, Any]:
    """Return what is known of features as plain values; times are seconds since 1970."""
    times = {"created": kept.created, "used": kept.used}
    return {"key": kept.folder.name, "folder": str(kept.folder), "size": kept.size} | times | {"about": kept.about}


def _describe(kept: KeptFolder) -> dict[str, str]:
    about = kept.about
    images, views = about.get("images", "-"), about.get("views", 1)
    return {
        "key": kept.folder.name[:SHORT],
        "model": str(about.get("model", "-")),
        "images": f"{images:,}" if isinstance(images, int) else str(images),
        "views": str(views),
        "size": _megabytes([kept]),
        "made": _day(kept.created),
        "last used": _day(kept.used),
    }


def _day(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # a time that somebody else wrote
        return "-"


def _megabytes(chosen: Sequence[KeptFolder]) -> str:
    return f"{sum(kept.size for kept in chosen) / 1e6:,.1f} MB"
