"""Which random changes the training images of a classifier get, as the options of a run say."""

from typing import Any

from zoo.data import Augment, Changes, name_transform
from zoo.errors import InputError
from zoo.tasks.classification.mixing import FIELDS, check_mixing


def choose_augment(options: Any, *, is_frozen: bool) -> Augment:
    """Choose what `auto` is: no changes where none are asked for and features of a frozen backbone can be kept then."""
    if options.augment == "auto":
        is_plain = options.views == 1 and options.transform is None and not list_changes(options)
        return "none" if is_frozen and is_plain else "crop-flip"
    augment: Augment = options.augment
    return augment


def list_changes(options: Any) -> dict[str, Any]:
    """Return the fields beside `augment` that ask for random changes, with their values."""
    mixing = {name: value for name in FIELDS if (value := getattr(options, name))}
    return {**Changes.of_options(options).said(), **mixing}


def check_augment(options: Any, model: Any) -> None:
    """Refuse a strength that the policy does not have, and what the loss of mixed images does not allow.

    Raises:
        InputError: Naming the fields.
    """
    Changes.of_options(options).check_policy(options.augment)
    check_mixing(options, model)


def check_has_images(data: Any, options: Any) -> None:
    """Refuse changes of batches that a loader of the user's brings.

    Raises:
        InputError: Naming the first field.
    """
    changes = list_changes(options)
    policy = {} if options.augment in ("auto", "none", "crop-flip") else {"augment": options.augment}
    own = {} if options.transform is None else {"transform": name_transform(options.transform)}
    if data.loaders and (said := {**own, **policy, **changes}):
        name, value = next(iter(said.items()))
        raise InputError(
            f"{name} is {value}, but the data are loaders, whose batches are used as they are. Augment the images in "
            f"the loader, or remove {name}."
        )


def describe_augment(options: Any) -> list[str]:
    """Return a line on what is changed beyond crop and flip, or that it is turned off; none if that is all."""
    changes = list_changes(options)
    told = [f"{name}={value:g}" for name, value in changes.items()]
    if options.augment == "none":
        return [f"note: augment=none turns off {', '.join(told)}"] if told else []
    policy = [] if options.augment in ("auto", "crop-flip") else [options.augment]
    return [f"augmentation: {', '.join(['crop-flip', *policy, *told])}"] if policy or told else []
