"""The scores of classifiers by their names, without a framework."""

from collections.abc import Mapping

SCORES: Mapping[str, str] = {"top1": "top-1", "top5": "top-5", "macro_f1": "macro F1"}
