"""The licences that bind a model: of its code, and of the weights it was loaded from or derived from."""

import os
from dataclasses import dataclass

from zoo.errors import LicenceError
from zoo.weights.spec import is_commercial


@dataclass(frozen=True)
class Licence:
    """Licences that bind a model: of its code, and of the weights it was loaded from or derived from (SPDX ids)."""

    code: str
    weights: str | None = None

    @property
    def commercial(self) -> bool:
        """Whether the weights are known to allow commercial use; a model without loaded weights is free."""
        return self.weights is None or is_commercial(self.weights)


def check_commercial(name: str, licence: str | None, commercial: bool | None = None) -> None:
    """Raise if commercial use was asked for, and the weights are not known to allow it.

    Args:
        name: The model, named in the error.
        licence: Of its weights, SPDX identifier; None: unknown.
        commercial: Whether it was asked for; None asks the environment variable `ZOO_COMMERCIAL_ONLY`.

    Raises:
        LicenceError: The text says what to do.
    """
    only = os.environ.get("ZOO_COMMERCIAL_ONLY", "") not in ("", "0") if commercial is None else commercial
    if only and not is_commercial(licence):
        raise LicenceError(
            f"the weights of {name} have the licence {licence or 'unknown'}, which is not known to allow commercial "
            "use, and commercial use was asked for (commercial=True or ZOO_COMMERCIAL_ONLY). Choose one of "
            "zoo.list_models(commercial=True), or pretrained=False."
        )
