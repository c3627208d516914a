"""The scores of detectors by their names, without a framework."""

from collections.abc import Mapping

SCORES: Mapping[str, str] = {"map": "mAP", "map50": "mAP50", "map75": "mAP75"}
