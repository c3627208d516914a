"""The library transformers as far as detectors need it: whether it is there, and networks of it by plain numbers.

It is an optional extra. A network is built of numbers that stand in this package; no configuration file is handed on.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import InputError

NEEDED = ("transformers", "scipy")
CLASSES = {  # model type: configuration, network, prefixes of the network's second names for the same tensors
    "d_fine": ("DFineConfig", "DFineForObjectDetection", ("class_embed.", "bbox_embed.")),
    "rt_detr_v2": ("RTDetrV2Config", "RTDetrV2ForObjectDetection", ("class_embed.", "bbox_embed.")),
    "rf_detr": ("RfDetrConfig", "RfDetrForObjectDetection", ()),
}


def import_transformers(model_type: str) -> Any:
    """Return the library transformers, able to build and to train detectors of this type.

    Raises:
        InputError: It or scipy is missing, or it is too old.
    """
    try:
        import scipy.optimize  # noqa: F401  (its absence would show in the first training step only)
        import transformers
    except ImportError as error:
        raise InputError(
            f"{model_type} needs {' and '.join(NEEDED)}, which cannot be imported ({error}). Install them: pip "
            "install 'zoo-finetune[transformers]'"
        ) from error
    if not hasattr(transformers, CLASSES[model_type][0]):
        raise InputError(
            f"transformers {transformers.__version__} has no {model_type}. "
            "Install a newer one: pip install -U 'zoo-finetune[transformers]'"
        )
    return transformers


@dataclass(frozen=True)
class Architecture:
    """A network of transformers as plain numbers.

    Attributes:
        model_type: A key of `CLASSES`.
        settings: What its configuration is made with, without the classes; also what a repository's `config.json` has
            to agree with.
        category_slots: Rows that weights for 91 COCO category numbers have for the 80 classes; empty: they have 80.
    """

    model_type: str
    settings: Mapping[str, Any]
    category_slots: tuple[int, ...] = ()

    def make_config(self, num_classes: int) -> Any:
        """Return the configuration for so many classes."""
        kind = getattr(import_transformers(self.model_type), CLASSES[self.model_type][0])
        return kind(num_labels=num_classes, **copy.deepcopy(dict(self.settings)))

    def make_network(self, num_classes: int) -> Any:
        """Return the network with random weights."""
        return self.network_class()(self.make_config(num_classes))

    def network_class(self) -> Any:
        """Return the class of the network."""
        return getattr(import_transformers(self.model_type), CLASSES[self.model_type][1])

    @property
    def second_names(self) -> tuple[str, ...]:
        """Prefixes of tensors that the network also has by another name."""
        return CLASSES[self.model_type][2]
