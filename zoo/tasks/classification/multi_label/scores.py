"""The scores of classifiers with several labels by their names, without a framework."""

from collections.abc import Mapping

SCORES: Mapping[str, str] = {"map": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1"}
