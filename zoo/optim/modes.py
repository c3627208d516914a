"""What optimizers may ask for besides gradients: a mode, or a closure."""

from typing import Any

CLOSURE = (
    "optimizer {} needs a closure in step(): it runs the model several times, which the training loop does not "
    "support. Use another optimizer, such as 'SGD' or 'AdamW'."
)


def asks_for_closure(error: BaseException) -> bool:
    """Whether an optimizer failed because it was given no closure."""
    return "closure" in str(error) or "'NoneType' object is not callable" in str(error)


def set_mode(optimizer: Any, *, learn: bool) -> None:
    """Switch an optimizer that keeps an average of the weights beside those it learns from; others have no modes.

    Args:
        optimizer: Such as those of schedulefree, with `train()` and `eval()`; or a wrapper of it.
        learn: Whether the model is to hold the weights to learn from, else the average, which is scored and saved.
    """
    switch = getattr(optimizer, "train" if learn else "eval", None)
    if callable(switch):
        switch()
