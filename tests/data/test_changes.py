from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from image_files import make_image
from zoo.data import Preprocess, Samples, collate, order_batches, train_transform
from zoo.data.changes import Changes
from zoo.errors import InputError

PLAIN = Preprocess(image_size=32, mean=(0.2, 0.4, 0.6))
MEAN = torch.tensor([51, 102, 153])[:, None, None]
POLICIES = ["trivial", "rand", "augmix", "imagenet", "cifar10", "svhn"]
EVERYTHING = Changes(
    vertical_flip=0.5, max_rotation=20.0, color_jitter=0.4, grayscale=0.3, random_erasing=0.5, augment_magnitude=12
)


def draw(seed: int = 0, image: Image.Image | None = None, augment: Any = "crop-flip", **changes: Any) -> Tensor:
    """The pixels of an image whose crop is all of it, and which is not mirrored."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"crop_scale_min": 1.0, "flip_probability": 0.0, "normalise": False}
    transform = train_transform(PLAIN, augment=augment, changes=Changes(**changes), **options)
    return transform(make_image((32, 32)) if image is None else image)


def test_each_change_does_what_its_name_says() -> None:
    plain = draw()
    assert torch.equal(draw(vertical_flip=1.0), plain.flip(1))
    grey = draw(grayscale=1.0)
    assert torch.equal(grey, grey[:1].expand(3, -1, -1))
    assert not torch.equal(grey, plain)
    erased = draw(random_erasing=1.0)
    hidden = (erased == MEAN).all(dim=0)
    rows, columns = hidden.any(dim=1).sum(), hidden.any(dim=0).sum()
    assert hidden.sum() == rows * columns >= 0.02 * 32 * 32  # one rectangle
    assert torch.equal(erased[:, ~hidden], plain[:, ~hidden])
    turned = [draw(seed, Image.new("RGB", (32, 32), "white"), max_rotation=45.0) for seed in range(8)]
    assert sum(bool((pixels[:, 0, 0] == MEAN.flatten()).all()) for pixels in turned) >= 4  # a corner that was outside
    assert all((pixels[:, 12:20, 12:20] == 255).all() for pixels in turned)
    means = torch.tensor([draw(seed, color_jitter=0.4).float().mean() for seed in range(20)])
    assert means.std() > 10
    assert abs(means.mean() - plain.float().mean()) < 20


@pytest.mark.parametrize("augment", POLICIES)
def test_policies_are_those_of_torchvision(augment: Any) -> None:
    theirs: dict[str, Any] = {
        "trivial": v2.TrivialAugmentWide(),
        "rand": v2.RandAugment(3, 14),
        "augmix": v2.AugMix(severity=5),
    }
    magnitude = {"rand": 14, "augmix": 5}.get(augment)
    policy = theirs.get(augment) or v2.AutoAugment(v2.AutoAugmentPolicy(augment))
    options = {"augment_magnitude": magnitude, "rand_ops": 3 if augment == "rand" else None}
    crop = [v2.RandomResizedCrop(32, (1.0, 1.0)), v2.RandomHorizontalFlip(0.0)]
    steps = v2.Compose([*crop, policy, v2.PILToTensor()])
    image, changed = make_image((32, 32)), 0
    for seed in range(6):
        ours = draw(seed, image, augment, **options)
        torch.manual_seed(seed)
        assert torch.equal(ours, steps(image))
        changed += not torch.equal(ours, draw())
    assert changed >= 3


class Pictures:
    in_threads = True

    def __len__(self) -> int:
        return 6

    def read(self, index: int) -> tuple[Image.Image, int]:
        return make_image((40, 48), index), index


def test_the_same_seed_gives_the_same_images_whatever_loads_them() -> None:
    def load(seed: int, num_workers: int) -> list[Tensor]:
        transform = train_transform(PLAIN, augment="rand", changes=EVERYTHING, normalise=False)
        options: dict[str, Any] = {"batch_size": 3, "shuffle": True, "pin_memory": False, "num_workers": num_workers}
        return [
            images for images, _ in order_batches(Samples(Pictures(), transform, seed), 6, collate, seed=1, **options)
        ]

    torch.manual_seed(5)
    once, state = torch.stack(load(0, 0)), torch.get_rng_state()
    assert torch.equal(once, torch.stack(load(0, 2)))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(once, torch.stack(load(1, 0)))


def test_a_strength_without_its_policy_is_refused() -> None:
    Changes(augment_magnitude=30, rand_ops=1).check_policy("rand")
    for changes, augment, text in (
        (
            {"augment_magnitude": 5},
            "trivial",
            r"magnitude is 5, but augment is 'trivial'\. Set augment to rand or",
        ),
        ({"rand_ops": 3}, "augmix", r"rand_ops is 3, but augment is 'augmix'"),
        ({"augment_magnitude": 11}, "augmix", r"augment_magnitude is 11; expected 1 to 10 for augment=augmix"),
        ({"augment_magnitude": 0}, "augmix", r"augment_magnitude is 0; expected 1 to 10"),
    ):
        with pytest.raises(InputError, match=text):
            Changes(**changes).check_policy(augment)


def test_what_is_at_its_default_is_not_said() -> None:
    assert Changes().said() == {}
    assert Changes(grayscale=0.5, augment_magnitude=0).said() == {"grayscale": 0.5, "augment_magnitude": 0}
    assert np.isclose(Changes(max_rotation=3.0).said()["max_rotation"], 3)
