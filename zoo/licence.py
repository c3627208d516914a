"""The licences that bind a model: of its code, and of the weights it was loaded from or derived from."""

from dataclasses import dataclass

from zoo.weights import is_commercial


@dataclass(frozen=True)
class Licence:
    """Licences that bind a model: of its code, and of the weights it was loaded from or derived from (SPDX ids)."""

    code: str
    weights: str | None = None

    @property
    def commercial(self) -> bool:
        """Whether the weights are known to allow commercial use; a model without loaded weights is free."""
        return self.weights is None or is_commercial(self.weights)
