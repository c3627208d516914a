"""Where the weights of an exported model come from: told to whoever gets the file, without paths of this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.exporters._card import name_data
from zoo.exporters._package import clean_config
from zoo.models import ModelConfig
from zoo.training import describe_weights, open_folder


def trace_lineage(config: ModelConfig, run: Path | None) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the configuration of a model without paths, and the lineage of its weights.

    Args:
        config: Of the model, as it is loaded.
        run: The folder of its run; None for a model that was not fine-tuned here.

    Returns:
        `weights`, `revision` and `sha256` of what it was loaded or fine-tuned from, `licence`, `data`, and of the `run`
        which epoch its weights are of, with their SHA-256.
    """
    own, data, trained = config.origin, None, None
    if run is not None:
        folder = open_folder(run)
        config = config.model_copy(update={"origin": folder.read_config().origin})
        data = name_data(folder.read_json("data.json").get("source")) if folder.file("data.json").is_file() else None
        trained = {"sha256": own.get("sha256"), "epoch": own.get("epoch") or describe_weights(folder.path)}
    config, _ = clean_config(config)
    told = {key: config.origin.get(key) for key in ("weights", "revision", "sha256")}
    return config, told | {"licence": config.licence, "data": data, "run": trained}


def tell_lineage(lineage: Mapping[str, Any]) -> str:
    """Return the lineage as a sentence."""
    source = lineage["weights"] or "random weights"
    exact = "".join(f", {key} `{lineage[key]}`" for key in ("revision", "sha256") if lineage[key])
    if (run := lineage["run"]) is None:
        return f"Weights: {source}{exact}."
    on = f" on {lineage['data']}" if lineage["data"] else ""
    epoch = f" ({run['epoch']})" if run["epoch"] else ""
    digest = f", SHA-256 `{run['sha256']}`" if run["sha256"] else ""
    return f"Fine-tuned{on} from {source}{exact}. Weights of the run{epoch}{digest}."
