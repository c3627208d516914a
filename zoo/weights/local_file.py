"""The file of weights that a path on this machine means."""

from collections.abc import Sequence
from pathlib import Path

from zoo._text import clean
from zoo.errors import WeightsError

_FILENAME = "model.safetensors"
_FOREIGN = (".pt", ".pth")  # what a reader of another program's files may be handed
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar", ".zip")


def find_file(path: Path, *, model: str, foreign: bool = False) -> Path:
    """Return the safetensors file that is meant.

    Args:
        path: A file; or a folder with `model.safetensors`, or with a single other safetensors file.
        model: The model it is for, named in errors.
        foreign: Whether a `.pth` or `.pt` file will do as well, if the path is the file itself.

    Raises:
        WeightsError: There is none, more than one, or the file is of another kind.
    """
    if path.is_dir():
        path = _choose_in_folder(path, model, foreign)
    accepted = (".safetensors", *_FOREIGN) if foreign else (".safetensors",)
    if path.suffix.lower() not in accepted:
        refused = f"weights of {model}: {path} is refused; expected a {' or '.join(accepted)} file."
        if names_pickle(path.name):
            refused += (
                " A pickle can run foreign code when it is loaded. Convert it where you trust it: "
                "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')."
            )
        raise WeightsError(refused)
    if not path.is_file():
        raise WeightsError(f"weights of {model}: {path} is not a file; expected a safetensors file.")
    return path


def names_pickle(name: str) -> bool:
    """Whether a file of this name is a pickle, or an archive that may hold one."""
    return name.lower().endswith(_PICKLES)


def _choose_in_folder(folder: Path, model: str, foreign: bool) -> Path:
    if (folder / _FILENAME).is_file():
        return folder / _FILENAME
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise WeightsError(f"weights of {model}: {folder} cannot be read: {error.strerror}.") from error
    files = [name for name in names if name.lower().endswith(".safetensors")]
    if len(files) == 1:
        return folder / files[0]
    expected = f"Expected {_FILENAME}, or one safetensors file of another name"
    if files:
        raise WeightsError(
            f"weights of {model}: folder {folder} holds {len(files)} safetensors files: {_shorten(files)}. "
            f"{expected}. Pass the path of the right one."
        )
    refused = [name for name in names if names_pickle(name)]
    why = f" {_shorten(refused)} can run foreign code when loaded and is not read." if refused else ""
    if foreign and (usable := [name for name in names if name.lower().endswith(_FOREIGN)]):
        why = f" It holds {_shorten(usable)}: pass the path of the right one."
    raise WeightsError(f"weights of {model}: folder {folder} holds no safetensors file. {expected}.{why}")


def _shorten(names: Sequence[str]) -> str:
    return clean(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))
