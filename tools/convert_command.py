"""`zoo convert`: a checkpoint of super-gradients becomes a folder as `zoo.get` and `zoo.load` take it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import echo
from zoo.errors import InputError, WeightsError
from zoo.files import to_path

if TYPE_CHECKING:
    from zoo.weights import ResolvedWeights


def convert(
    file: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .pth or .pt file of super-gradients.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Output folder; new or empty.")],
    model: Annotated[
        str,
        typer.Option(metavar="NAME", help="yolo_nas_s, yolo_nas_m or yolo_nas_l.", show_default="found by the shapes"),
    ] = "",
    classes: Annotated[
        str, typer.Option(metavar="NAMES", help="Class names, such as 'a,b,c'.", show_default="the file's")
    ] = "",
    licence: Annotated[
        str, typer.Option(metavar="NAME", help="Licence of the weights, if they are your own.", show_default="unknown")
    ] = "",
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Ignore the classes and preprocessing in the file.")
    ] = False,
) -> None:
    """Convert a YOLO-NAS checkpoint of super-gradients.

    Writes model.safetensors and config.json, with the checkpoint's classes and preprocessing. The checkpoint is read
    as data: no code in it is run.

    \b
    Examples:
      zoo convert ckpt_best.pth -o my-detector
      zoo convert ckpt_best.pth -o my-detector --classes 'RBC,WBC,Platelets' --licence apache-2.0
      zoo finetune yolo_nas_s my-data --weights my-detector
    """  # noqa: D301
    from zoo.models import from_weights
    from zoo.training import create_folder

    name, found = _read(file, model, weights_only)
    if licence:
        found = _set_licence(found, licence)
    network = from_weights(name, found)
    if classes:
        network.classes = _split_names(classes, network.num_classes)
    folder = create_folder(out, "")
    folder.save_model(network, network.state_dict())
    folder.seal()
    _report(network, folder.path)


def _read(file: Path, model: str, weights_only: bool) -> "tuple[str, ResolvedWeights]":
    """Return the name of the model, and the file as `zoo.get` would find it."""
    from zoo.models import find_entry
    from zoo.models.families.yolo_nas import find_name, read_checkpoint
    from zoo.weights import find_file, find_weights

    file = to_path(file)
    if not file.is_file():
        raise InputError(f"{file} is {'a folder' if file.is_dir() else 'not there'}; expected a .pth or .pt file.")
    if file.suffix.lower() == ".safetensors":
        raise InputError(f"{file} is safetensors already. Use it as it is: zoo finetune MODEL DATA --weights {file}")
    file = find_file(file, model=model or "YOLO-NAS", foreign=True)
    content = partial(read_checkpoint, with_processing=not weights_only)(file)
    name = model or find_name({key: tuple(tensor.shape) for key, tensor in content.tensors.items()})
    if not name:
        raise WeightsError(
            f"{file} is no YOLO-NAS of a known size: its {len(content.tensors)} tensors have other names or shapes "
            f"({', '.join(list(content.tensors)[:3])}). Expected yolo_nas_s, yolo_nas_m or yolo_nas_l."
        )
    entry = find_entry(name)
    if entry.read_foreign is None:
        raise InputError(f"{entry.name} takes no checkpoints of super-gradients. Expected a YOLO-NAS.")
    return entry.name, find_weights(file, entry.weights, name=entry.name, read_foreign=lambda _: content)


def _set_licence(found: "ResolvedWeights", licence: str) -> "ResolvedWeights":
    if found.licence is not None:
        raise InputError(f"this is the published file, whose licence is {found.licence}. Leave out --licence.")
    return replace(found, licence=licence.strip().lower())


def _split_names(text: str, count: int) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != count or not all(names) or len(set(names)) != count:
        raise InputError(f"--classes has {len(names)} names; expected {count} different ones, with commas between.")
    return names


def _report(network: Any, folder: Path) -> None:
    """Print what was taken, and what the folder says of it."""
    shown = ", ".join(network.classes[:10]) + (", ..." if network.num_classes > 10 else "")
    letterbox, settings = network.preprocess, network.postprocess
    height, width = letterbox.canvas_size
    echo(str(network.load_report), lines=True)
    echo(f"classes: {network.num_classes} ({shown})")
    echo(
        f"images: {letterbox.channels.upper()}, fitted into {letterbox.content_size[1]} x "
        f"{letterbox.content_size[0]} of {width} x {height} px, {letterbox.position}, padded with {letterbox.fill}"
    )
    echo(f"boxes: confidence {settings.conf:g}, IoU {settings.iou:g}")
    echo(f"wrote {folder}. Use it: zoo finetune {network.config['model']} DATA --weights {folder}")
