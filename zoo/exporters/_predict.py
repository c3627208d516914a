"""Predict with the model in this folder.

    python predict.py photo.jpg folder/ ... [--top-k 3] [--model onnx-int8]

Needs numpy, Pillow and the runtime of the format: onnxruntime (`pip install onnxruntime numpy pillow`). `config.json`
beside this file says how an image is prepared and what the outputs mean; of an export with `raw` it also holds the
thresholds of a detector. Prints JSON, one object per image.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
RESIZING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONGEST = 20  # times its short side: of a longer image the ends are cut off before it is resized


class Predictor:
    """The model of a folder, with its own reading and preprocessing.

    Args:
        folder: With `config.json` and the model.
        form: A file's name in `config.json`, such as `onnx` or `onnx-int8`; None: the first whose runtime is installed.
        threads: Of the runtime; None: it chooses.
    """

    def __init__(self, folder: Any, form: str | None = None, threads: int | None = None) -> None:
        self.config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.export = self.config["export"]
        self.preprocess = self.config["preprocess"]
        self.classes = self.config["classes"] or list(map(str, range(self.config["num_classes"])))
        self.is_detector = self.config["task"] == "detection"
        files = self.export["files"]
        runtimes = {name: RUNTIMES[name.partition("-")[0]] for name in files}
        form = form or next((name for name in files if find_spec(runtimes[name][0])), next(iter(files)))
        self._run = runtimes[form][1](Path(folder) / files[form], threads)

    def prepare(self, source: Any) -> tuple[Any, Any]:
        """Return the `(H, W, 3)` uint8 pixels that the model takes of an image, and where the image lies there."""
        image, size = read_image(source, self.preprocess)
        if self.preprocess.get("kind") == "letterbox":
            return fit(image, self.preprocess, size)
        return crop(image, self.preprocess), None

    def run(self, pixels: Any) -> dict[str, Any]:
        """Return the outputs by name for `(N, H, W, 3)` uint8 pixels."""
        return dict(zip(self.export["outputs"], self._run(np.ascontiguousarray(self.inputs(pixels))), strict=True))

    def inputs(self, pixels: Any) -> Any:
        """Return what the file takes for `(N, H, W, 3)` uint8 pixels."""
        return normalise(pixels, self.preprocess) if self.export["input"] == "float" else pixels

    def predict(self, path: Any, top_k: int = 5) -> dict[str, Any]:
        """Return what is on an image: classes with probabilities, or boxes in its own pixels."""
        pixels, place = self.prepare(path)
        outputs = self.run(pixels[None])
        found = self.boxes(outputs, place) if self.is_detector else self.names(outputs, top_k)
        return {"source": str(path)} | found

    def names(self, outputs: dict[str, Any], top_k: int) -> dict[str, Any]:
        """Return the most probable classes."""
        probabilities = soften(outputs["logits"][0]) if "logits" in outputs else outputs["probabilities"][0]
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        names = [self.classes[index] for index in best]
        return {"names": names, "probabilities": [float(probabilities[index]) for index in best]}

    def boxes(self, outputs: dict[str, Any], place: Any) -> dict[str, Any]:
        """Return the boxes, the surest first, clipped to the image."""
        boxes, scores = outputs["boxes"][0], outputs["scores"][0]
        if "labels" in outputs:
            labels = outputs["labels"][0]
        else:
            boxes, scores, labels = select(boxes, scores, self.config["postprocess"])
        scale_x, scale_y, left, top, (width, height) = place
        shift, factor = np.array([left, top] * 2, np.float32), np.array([1 / scale_x, 1 / scale_y] * 2, np.float32)
        boxes = ((boxes - shift) * factor).clip(0, [width, height, width, height])
        inside = (scores > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        rows = [
            {
                "name": self.classes[label],
                "label": int(label),
                "score": round(float(score), 6),
                "box": [round(float(side), 3) for side in box],
            }
            for box, score, label in zip(boxes[inside], scores[inside], labels[inside], strict=True)
        ]
        return {"height": height, "width": width, "detections": rows}


def read_image(path: Any, how: dict[str, Any]) -> tuple[Image.Image, tuple[int, int]]:
    """Return an image as upright 8-bit RGB, and its width and height, which may be more.

    Transparent parts become white, 16 bits of gray are scaled to 8. With `decode: fast` a JPEG is decoded at a half, a
    quarter or an eighth of its sides where that leaves twice the pixels that are needed.
    """
    if isinstance(path, Image.Image):
        return path, path.size
    with Image.open(path) as image:
        full = reduce(image, how) if how.get("decode") == "fast" and image.format in ("JPEG", "MPO") else None
        image.load()
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        rgb = to_rgb(image)
    upright = rgb if turn is None else rgb.transpose(turn)
    return upright, full or upright.size


def reduce(image: Image.Image, how: dict[str, Any]) -> tuple[int, int]:
    """Ask the decoder of a JPEG for no more than is needed; return the size of the whole image, upright."""
    is_lying = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    width, height = image.size[::-1] if is_lying else image.size
    if how.get("kind") == "letterbox":
        needed: tuple[float, float] = placement(width, height, how)[:2]
    elif how["crop_mode"] == "squash":
        needed = (math.floor(how["image_size"] / how["crop_pct"]),) * 2
    else:
        short = math.floor(how["image_size"] / how["crop_pct"])
        needed = (width * short / min(width, height), height * short / min(width, height))
    least = (math.ceil(2 * needed[0]), math.ceil(2 * needed[1]))
    image.draft(None, least[::-1] if is_lying else least)
    return width, height


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of Pillow as 8-bit RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise ValueError(f"its pixels are {image.mode}; expected 8-bit or 16-bit gray, RGB, palette or CMYK")
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas, rgba = Image.new("RGB", image.size, "white"), image.convert("RGBA")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def crop(image: Image.Image, how: dict[str, Any]) -> Any:
    """Resize the short side and cut out the middle."""
    side, squash = how["image_size"], how["crop_mode"] == "squash"
    short = math.floor(side / how["crop_pct"])
    if not squash:
        most = LONGEST * min(image.size)
        left, top = (max(0, (length - most) // 2) for length in image.size)
        image = image.crop((left, top, image.width - left, image.height - top)) if left or top else image
    width, height = image.size
    target = (short, short)
    if not squash and width <= height:
        target = (short, int(short * height / width))
    elif not squash:
        target = (int(short * width / height), short)
    if target != image.size:
        image = image.resize(target, RESIZING[how["interpolation"]])
    left, top = (round((length - side) / 2) for length in image.size)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def placement(width: int, height: int, how: dict[str, Any]) -> tuple[int, int, float, float]:
    """Return to which width and height an image is resized for a detector, and by which factors."""
    scale_y, scale_x = how["content_size"][0] / height, how["content_size"][1] / width
    if how["keep_ratio"]:
        scale_y = scale_x = min(scale_y, scale_x)
    return max(1, round(width * scale_x)), max(1, round(height * scale_y)), scale_x, scale_y


def fit(image: Image.Image, how: dict[str, Any], size: tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Put an image, of this size or reduced from it, onto the canvas of a detector.

    Returns:
        The canvas; the scales and shifts from pixels of the image to those there, and the size.
    """
    size, (rows, columns) = size or image.size, how["canvas_size"]
    width, height, scale_x, scale_y = placement(*size, how)
    top, left = ((rows - height) // 2, (columns - width) // 2) if how["position"] == "center" else (0, 0)
    canvas = np.full((rows, columns, 3), how["fill"], np.uint8)
    canvas[top : top + height, left : left + width] = resize(np.asarray(image), height, width)
    return canvas, (scale_x, scale_y, left, top, size)


def resize(pixels: Any, height: int, width: int) -> Any:
    """Resize `(H, W, 3)` pixels, byte for byte as OpenCV's bilinear resize: weights of 11 bits, cut in three steps."""
    if pixels.shape[:2] == (height, width):
        return pixels
    (x, next_x, wx, next_wx), (y, next_y, wy, next_wy) = taps(pixels.shape[1], width), taps(pixels.shape[0], height)
    rows = pixels.astype(np.int32)
    across = (rows[:, x] * wx[:, None] + rows[:, next_x] * next_wx[:, None]) >> 4
    down = ((across[y] * wy[:, None, None]) >> 16) + ((across[next_y] * next_wy[:, None, None]) >> 16)
    return ((down + 2) >> 2).astype(np.uint8)


def taps(source: int, target: int) -> Any:
    """Return for each pixel of the result the two pixels that it is mixed of, and their weights out of 2048."""
    middles = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(middles).astype(np.int32)
    share = middles - first.astype(np.float32)
    weights = [np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - share, share)]
    return first.clip(0, source - 1), (first + 1).clip(0, source - 1), *weights


def normalise(pixels: Any, how: dict[str, Any]) -> Any:
    """Return `(N, 3, H, W)` float32 of `(N, H, W, 3)` uint8, as a model with `input: float` takes it."""
    values = pixels[..., ::-1] if how.get("channels") == "bgr" else pixels
    values = values.astype(np.float32) / np.float32(how.get("max_value", 255.0))
    values = (values - np.float32(how["mean"])) / np.float32(how["std"])
    return values.transpose(0, 3, 1, 2)


def soften(logits: Any) -> Any:
    """Return the probabilities of logits `(C,)`."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def select(boxes: Any, scores: Any, how: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return boxes, scores and labels of what stays of boxes `(L, 4)` and scores `(L, C)`, the surest first."""
    if how["multi_label"]:
        places, labels = np.nonzero(scores > how["conf"])
        scores = scores[places, labels]
    else:
        best = scores.max(1)
        places = np.flatnonzero(best >= how["conf"])
        labels, scores = scores.argmax(1)[places], best[places]
    order = np.argsort(-scores, kind="stable")[: how["nms_top_k"]]
    boxes, scores, labels = boxes[places[order]], scores[order], labels[order]
    groups = np.zeros_like(labels) if how["class_agnostic"] else labels
    kept = suppress(boxes, groups, how["iou"])[: how["max_predictions"]]
    return boxes[kept], scores[kept], labels[kept]


@np.errstate(invalid="ignore")  # boxes without an area overlap nothing
def suppress(boxes: Any, groups: Any, iou: float) -> list[int]:
    """Return the numbers of the boxes that no surer one of their group overlaps by more than an IoU."""
    areas, is_free, kept = (boxes[:, 2:] - boxes[:, :2]).prod(1), np.ones(len(boxes), bool), []
    for number in range(len(boxes)):
        if is_free[number]:
            kept.append(number)
            sides = np.minimum(boxes[number, 2:], boxes[:, 2:]) - np.maximum(boxes[number, :2], boxes[:, :2])
            shared = sides.clip(0).prod(1)
            overlaps = shared / (areas + areas[number] - shared) > iou
            is_free &= ~(overlaps & (groups == groups[number]))
    return kept


def open_onnx(path: Path, threads: int | None) -> Any:
    """Return a function that runs an ONNX file with onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})


def open_openvino(path: Path, threads: int | None) -> Any:
    """Return a function that runs an OpenVINO model on the CPU, in float32."""
    import openvino

    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"} | (
        {"INFERENCE_NUM_THREADS": threads} if threads else {}
    )
    compiled = openvino.compile_model(str(path), "CPU", options)
    return lambda pixels: list(compiled(pixels).to_tuple())


def open_torch(path: Path, threads: int | None) -> Any:
    """Return a function that runs a program of torch on the CPU; reading it can run code, so it is checked first."""
    import torch

    check_digest(path)
    if threads:
        torch.set_num_threads(threads)
    program = torch.export.load(path).module()

    @torch.inference_mode()
    def run(pixels: Any) -> Any:
        return [output.numpy() for output in program(torch.tensor(pixels))]

    return run


def check_digest(path: Path) -> None:
    """Compare a file with its SHA-256 in SHA256SUMS beside it, if there is one."""
    sums = path.with_name("SHA256SUMS")
    if not sums.is_file():
        return
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in sums.read_text().splitlines())}
    if hashlib.sha256(path.read_bytes()).hexdigest() != digests.get(path.name):
        raise ValueError(f"{path} is not the file that was exported: its SHA-256 is not the one in {sums.name}.")


RUNTIMES: dict[str, tuple[str, Any]] = {
    "onnx": ("onnxruntime", open_onnx),
    "openvino": ("openvino", open_openvino),
    "torch": ("torch", open_torch),
}


def find_images(names: Any) -> Iterator[Path]:
    """Yield the paths of images; a folder stands for the images in it."""
    for name in map(Path, names):
        yield from sorted(p for p in name.rglob("*") if p.suffix.lower() in SUFFIXES) if name.is_dir() else [name]


def main(argv: Any = None) -> int:
    """Print what is on images, as JSON; return 1 if some cannot be read."""
    parser = argparse.ArgumentParser(description="Say what is on images, as JSON.")
    parser.add_argument("images", nargs="+", help="image files or folders")
    parser.add_argument("--top-k", type=int, default=5, help="classes per image")
    files = json.loads((Path(__file__).parent / "config.json").read_text(encoding="utf-8"))["export"]["files"]
    parser.add_argument("--model", choices=list(files), help="which file; else the first whose runtime is installed")
    options = parser.parse_args(argv)
    try:
        predictor, failed = Predictor(Path(__file__).parent, options.model), 0
    except (OSError, ValueError) as error:
        print(f"cannot open the model: {error}", file=sys.stderr)
        return 1
    for path in find_images(options.images):
        try:
            print(json.dumps(predictor.predict(path, options.top_k)))
        except (OSError, ValueError) as error:
            failed += 1
            print(f"cannot read {path}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
