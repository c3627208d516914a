"""What stands at a place becomes a model: a name, a repository, a run, or a file that was exported.

The packages below tell an export from what has weights, and refuse it, as most of them need weights; here it is opened.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from zoo import exporters, models, training
from zoo.errors import ExportedError

if TYPE_CHECKING:
    from zoo.models import Model
    from zoo.tasks import AnyEvaluation


def get(
    name: str | os.PathLike[str],
    *,
    pretrained: bool | str | os.PathLike[str] = False,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    drop_rate: float = 0.0,
    in_channels: int | None = None,
    commercial: bool | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
) -> "Model":
    """Build a model on the CPU in float32: a `Classifier`, a `YoloNAS`, or what was registered.

    It is in eval mode, ready to predict, as `from_pretrained` of transformers leaves its models: `finetune` switches
    modes itself, and a training loop of your own begins with `model.train()`. Without that, norm layers keep their
    statistics and nothing is dropped out. Factories of timm and torchvision return train mode instead, in which a
    forgotten `model.eval()` makes predictions wrong without a word.

    Args:
        name: A name of `zoo.list_models()`, or `timm/<name>` for any classifier of timm. A name that was registered
            gives that very module, with `classes`, `preprocess`, `licence`, `load_report` and `config` set. Or a
            repository, `org/name[@revision]`, or a run's folder, whose `config.json` says which model it holds: with
            its weights. Or an export: its folder, or a file of it, which predicts and cannot be trained.
        pretrained: True: the known weights, from the Hub at their pinned commit, or from their publisher. A path: a
            safetensors file, or a folder with one (and `config.json`), for example that of a run; for YOLO-NAS also a
            `.pth` of super-gradients, which is read as data. `org/name[@revision]`: a Hub repository.
        num_classes: Number of outputs; None: as the weights have. If it differs, what depends on it is made anew: the
            head of a classifier, the predictors of classes of a detector.
        classes: Their names, instead of their number. Outputs of the same names are kept, wherever they stand; those of
            other names are made anew.
        drop_rate: Share of the features dropped before the classifier in training, 0 to 1; for classifiers.
        in_channels: Channels of the images, for detectors; None: as the weights have, or 3. Kernels for other channels
            are made of those of the weights.
        commercial: True refuses weights that are not known to allow commercial use; None asks the environment
            variable `ZOO_COMMERCIAL_ONLY`.
        seed: Of new layers: the same call gives the same weights.
        cache_dir: Where downloads are kept; None: the Hub client's own cache.
        token: For private or gated repositories; None: the client's saved one.

    Raises:
        InputError: For an unknown name or a value out of range.
        WeightsError: If the weights cannot be had, or do not fit.
        LicenceError: If commercial use was asked for and the weights do not allow it.
    """
    try:
        return models.get(
            name,
            pretrained=pretrained,
            num_classes=num_classes,
            classes=classes,
            drop_rate=drop_rate,
            in_channels=in_channels,
            commercial=commercial,
            seed=seed,
            cache_dir=cache_dir,
            token=token,
        )
    except ExportedError:
        if num_classes is not None or classes is not None or in_channels is not None or drop_rate:
            raise
    return exporters.open_export(name, commercial=commercial, cache_dir=cache_dir, token=token)


def load(
    run: "training.Run | str | os.PathLike[str]",
    model: Any = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> "Model":
    """Return the model of a run in eval mode, ready to predict: the same logits as when the run ended, bit for bit.

    A training loop of your own begins with `model.train()`; `finetune` switches modes itself.

    Args:
        run: A run, its folder, or any folder with its `model.safetensors` and `config.json`; or a repository on the Hub
            that `zoo.push` has made, `org/name` or `org/name@revision`. Or an export: its folder, or a file of it,
            run by its own runtime. A run has the weights of its best epoch unless `keep` said otherwise, and
            `model.config["origin"]["epoch"]` tells which; `runs/a/last.safetensors` loads those of the last.
        model: A network of the run's class, if it is not one of the registry's.
        cache_dir: Where downloads are kept; None: the Hub client's own cache.
        token: For private or gated repositories; None: the client's saved one.
    """
    place = run.folder if isinstance(run, training.Run) else run
    try:
        return cast("Model", training.load_model(place, model, cache_dir=cache_dir, token=token))
    except ExportedError:
        if model is not None:
            raise
    return exporters.open_export(place, cache_dir=cache_dir, token=token)


def evaluate(
    model_or_run: Any,
    data: Any,
    *,
    split: str = "val",
    batch_size: int | None = None,
    device: str = "auto",
    num_workers: int | None = None,
    skip_bad: bool = False,
    image_root: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> "AnyEvaluation":
    """Evaluate a model on labelled images.

    Args:
        model_or_run: A model from `zoo.get`, a `Run`, a run folder, or a file of its weights (`last.safetensors`); or
            an export, its folder or a file of it.
        data: What `finetune` takes. Its classes are matched with the model's by name.
        split: `train`, `val` or `test`.
        batch_size: Images per forward pass; None: 64, or 8 for a detector.
        device: `auto`, `cpu`, `cuda` or `mps`.
        num_workers: Data-loading processes; None: chosen automatically.
        skip_bad: Skip unreadable files instead of stopping.
        image_root: Of a table of images: the folder that its paths start in; None: its own folder.
        progress: Whether to show a bar.

    Returns:
        A `zoo.tasks.classification.metrics.Evaluation`: top-1, top-5, loss, scores per class and the confusion matrix;
        of a detector a `zoo.tasks.detection.metrics.DetectionEvaluation`: mAP, loss, scores per class.
    """
    options: dict[str, Any] = {"split": split, "batch_size": batch_size, "device": device, "num_workers": num_workers}
    options |= {"skip_bad": skip_bad, "image_root": image_root, "progress": progress}
    try:
        return training.evaluate(model_or_run, data, **options)
    except ExportedError:
        pass
    return training.evaluate(exporters.open_export(model_or_run), data, **options)
