"""What a person should know before a run begins, of settings that do what they say but seldom what was meant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from zoo.rates import DEFAULT, parse_key
from zoo.settings.preset import Preset

MOST_COPIES = 2  # pairs that a note names
LENGTHS = 3  # a moving average has forgotten its start after so many times its length


def notes_on(preset: Preset, steps: int, names: Iterable[str], optimizer: Any) -> Iterator[str]:
    """Yield what should be known.

    Args:
        preset: The effective one.
        steps: Optimizer steps of the whole run.
        names: Of all parameters.
        optimizer: The user's own, if it is one.
    """
    if preset.ema_decay is not None and not preset.ema_warmup and steps < LENGTHS / (1 - preset.ema_decay):
        yield (
            f"ema_decay is {preset.ema_decay:g} and the run has {steps:,} steps: the EMA weights still contain "
            f"{preset.ema_decay**steps:.0%} of the initial weights at the end. Set ema_warmup, or a smaller "
            "ema_decay."
        )
    if isinstance(preset.lr, Mapping):
        yield from cut_names(preset.lr, names)
    if isinstance(optimizer, Optimizer):
        yield from _find_decayed(optimizer)


def notes_on_copies(files: Mapping[str, Mapping[str, str]], labels: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield that the very same file is in two splits, or in two classes.

    Args:
        files: Digests of the images, by split and name.
        labels: Their classes, by split and name; of a split that is not there they are not looked at.
    """
    places: dict[str, list[tuple[str, str]]] = {}
    for split, digests in files.items():
        for name, digest in digests.items():
            places.setdefault(digest, []).append((split, name))
    copied = [found for digest, found in places.items() if digest and len(found) > 1]
    for split in ("val", "test"):
        pairs: list[tuple[str, ...]] = []
        for found in copied:
            learnt = [name for where, name in found if where == "train"]
            pairs += [(learnt[0], name) for where, name in found if where == split and learnt]
        if pairs:
            yield (
                f"{split} contains copies of training images: {len(pairs):,} of {len(files[split]):,} "
                f"({_show(pairs)}). They inflate the score; remove one image of each pair."
            )
    mixed: list[tuple[str, ...]] = []
    for found in copied:
        classes = {labels[split][name]: name for split, name in reversed(found) if name in labels.get(split, {})}
        mixed += [tuple(reversed(classes.values()))] if len(classes) > 1 else []
    if mixed:
        yield f"images in more than one class: {len(mixed):,} ({_show(mixed)}). Remove the wrong copies."


def cut_names(keys: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    """Yield for each key that is the whole name of a part, and also the beginning of other names, what it catches."""
    listed = list(names)
    for text in keys:
        prefix = "" if text == DEFAULT else parse_key(text).prefix
        if not prefix or prefix.endswith("."):
            continue
        caught = [name for name in listed if name.startswith(prefix)]
        longer = [name for name in caught if name != prefix and not name.startswith(f"{prefix}.")]
        if longer and len(longer) < len(caught):
            parts = dict.fromkeys(prefix + name[len(prefix) :].partition(".")[0] for name in longer)
            shown = ", ".join(list(parts)[:3]) + (", …" if len(parts) > 3 else "")
            yield (
                f"the key {text!r} also matches {shown}. To match only {prefix}, end the key with a dot: "
                f"{prefix + '.'!r}."
            )


def _show(pairs: Sequence[tuple[str, ...]]) -> str:
    shown = "; ".join(f"{pair[0]!r} and {pair[1]!r}" for pair in pairs[:MOST_COPIES])
    return shown + ("; ..." if len(pairs) > MOST_COPIES else "")


def _find_decayed(optimizer: Optimizer) -> Iterator[str]:
    """Yield that an optimizer has been used before, if its rates are no longer those that it began with."""
    for group in optimizer.param_groups:
        now, first = group["lr"], group.get("initial_lr", group["lr"])
        if float(now) != float(first):
            yield (
                f"the optimizer was used before: its learning rate was {float(first):g} initially and is now "
                f"{float(now):g}, which the run starts from. Create a new optimizer, or reset the lr of its groups."
            )
            return
