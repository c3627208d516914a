"""What all contenders that train a classifier share: the job, the images, and which parameters learn."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CROP_SHARE, MEAN, STD = 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOMENTUM = 0.9


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        model: A name of timm.
        weights: A safetensors file in timm's names, as `write_start` makes it.
        data: `train/<class>/*.jpg` and `val/<class>/*.jpg`.
        size: Side of the input, in pixels.
        epochs: Passes over the training images.
        batch: Images per step.
        workers: Processes that load images; this library chooses its own.
        frozen: Whether the head alone learns.
        lr: Learning rate.
        device: `cpu` or `cuda`.
        precision: `no` or `bf16`.
        channels_last: Whether the loop by hand lays images and weights out channels last.
        memory_steps: Steps of an epoch on one batch that lies on the device; 0: the images are read from files.
        fields: Further fields of this library's preset.
    """

    model: str
    weights: str
    data: str
    size: int
    epochs: int
    batch: int = 32
    workers: int = 0
    frozen: bool = True
    lr: float = 0.05
    device: str = "cpu"
    precision: str = "no"
    channels_last: bool = False
    memory_steps: int = 0
    fields: dict[str, Any] = field(default_factory=dict)


class BatchInMemory:
    """A loader that gives the same random batch again and again.

    Images lie on the job's device, channels last; targets are where loaders give them, pinned for a GPU.
    """

    def __init__(self, job: Job, steps: int) -> None:
        import torch

        self.steps = steps
        images = torch.randn(job.batch, 3, job.size, job.size, device=job.device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.arange(job.batch) % 10
        self.targets = targets.pin_memory() if job.device == "cuda" else targets

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for _ in range(self.steps):
            yield self.images, self.targets


def freeze(job: Job, network: Any) -> list[Any]:
    """Freeze what is not of the head, if the job says so; return the parameters that learn."""
    head = find_head(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = not job.frozen or name.startswith(f"{head}.")
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def find_head(network: Any) -> str:
    """Return the name of the last layer of a network of timm."""
    name = network.pretrained_cfg["classifier"]
    assert isinstance(name, str)
    return name


def open_folder(data: str, split: str, size: int) -> Any:
    """Return torchvision's image folder with the transforms that all contenders have."""
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    resize = v2.Resize(int(size / CROP_SHARE), interpolation=v2.InterpolationMode.BICUBIC)
    steps = [resize, v2.CenterCrop(size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    return ImageFolder(Path(data) / split, v2.Compose([*steps, v2.Normalize(MEAN, STD)]))


def resize_and_crop(image: Any, size: int) -> Any:
    """Do with an image of Pillow what the transforms of `open_folder` do."""
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    short = functional.resize(image, [int(size / CROP_SHARE)], interpolation=v2.InterpolationMode.BICUBIC)
    return type(image)(functional.center_crop(short, [size, size]))
