"""The model of a run: its configuration, building its network, and loading its weights."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from zoo._model import known_config, set_fact
from zoo.errors import WeightsError
from zoo.files import check_checksum, digest_file, to_path
from zoo.models import (
    ModelConfig,
    adopt_thresholds,
    find_saved_entry,
    from_config,
    names_repository,
    open_saved,
    take_model,
)
from zoo.tasks import Evaluation
from zoo.training.run_claim import open_folder
from zoo.training.run_folder import EVALUATION, LAST, WEIGHTS, RunFolder, describe_weights, split_run
from zoo.training.run_stage import RECORD, STATE
from zoo.weights import LoadReport, ResolvedWeights, find_weights, load_into

_WRAPPER = re.compile(r"(?<![^.])(_orig_mod|module)\.")


def load_model(
    path: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> nn.Module:
    """Return the model of a run, a checkpoint folder or a repository, in eval mode: the same logits, bit for bit.

    Args:
        path: The folder, or one of its files of weights, such as `last.safetensors`; or `org/name`,
            `org/name@revision` of a repository on the Hub, where there is no such folder.
        model: A network to load into, for a run of a class that is not in the registry.
        cache_dir: Where downloads are kept; None: the Hub client's own cache.
        token: For private or gated repositories; None: the client's saved one.
    """
    is_remote = names_repository(path) and not os.path.exists(to_path(path))
    if is_remote:
        config, found = _fetch(str(path), cache_dir, token)
    else:
        root, name = split_run(path)
        folder = open_folder(root)
        config = folder.read_config()
        _check_buildable(folder, config, model)
        found = _find_weights(folder, config, name)
    network: Any = from_config(config) if model is None else take_model(model)
    if model is not None:
        _set_facts(network, config)
    report = load_into(network, _without_wrappers(found, network), head=(), keep_head=True)
    if facts := known_config(network):
        network.load_report = report
        place = f"{str(path).partition('@')[0]}@{found.revision}" if is_remote else str(Path(found.origin).absolute())
        tell_origin(facts, found, place)
        if not is_remote and (epochs := describe_weights(folder.path, name)):
            facts["origin"]["epoch"] = epochs
    loaded: nn.Module = network.eval()
    return loaded


def tell_origin(facts: dict[str, Any], found: ResolvedWeights, place: str) -> None:
    """Say in a model's configuration where its weights are; what a file says of that itself is not followed.

    Args:
        facts: The configuration, changed in place.
        found: The weights.
        place: What to pass as `pretrained` to have them again.
    """
    told = {"weights": found.origin, "revision": found.revision, "sha256": found.sha256, "pretrained": place}
    before = {key: value for key, value in facts["origin"].items() if key != "epoch"}
    facts["origin"] = before | told


def adopt_weights(model: nn.Module, folder: RunFolder) -> None:
    """Say of a model that has learnt that its weights are those of its run, as if it had been loaded from there."""
    facts, weights = known_config(model), folder.file(WEIGHTS)
    if not facts:
        return
    digest = digest_file(weights) if weights.is_file() else ""
    place = str(folder.path.absolute())
    found = ResolvedWeights(weights, None, place, None, digest, facts.get("licence"), pinned=True)
    tell_origin(facts, found, place)
    cast(Any, model).load_report = LoadReport(
        place, tuple(model.state_dict()), (), (), sha256=digest, revision=None, licence=found.licence, pinned=True
    )


def save_made(
    folder: RunFolder, model: nn.Module, evaluation: Evaluation | None, records: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write a model that was made of others without a training, into a folder that opens as a run's does, and is none.

    Args:
        folder: Claimed, and empty.
        model: Moved to the CPU.
        evaluation: Its scores on the validation images.
        records: What else is to be told, by the names of the files.
    """
    model.cpu()
    folder.save_model(model, model.state_dict())
    folder.seal()
    if evaluation is not None:
        folder.write_json(EVALUATION, evaluation.to_dict())
    for name, values in records.items():
        folder.write_json(name, values)
    folder.file(RECORD).unlink()


def build_network(folder: RunFolder, model: nn.Module | None = None) -> tuple[nn.Module, ModelConfig]:
    """Return the network of a run, its weights still to be loaded, and its configuration.

    Args:
        folder: The run's.
        model: The network, if its class is not in the registry.
    """
    config = folder.read_config()
    _check_buildable(folder, config, model)
    return (from_config(config) if model is None else take_model(model)), config


def _fetch(
    repo: str, cache_dir: str | os.PathLike[str] | None, token: str | bool | None
) -> tuple[ModelConfig, ResolvedWeights]:
    """Bring configuration and weights of a repository, of one commit."""
    saved = open_saved(repo, cache_dir=cache_dir, token=token)
    name = find_saved_entry(saved).name
    found = find_weights(saved.source, None, name=name, cache_dir=cache_dir, token=token)
    return saved.config.model_copy(update={"model": name}), found


def _set_facts(model: nn.Module, config: ModelConfig) -> None:
    """Give a network that the user built the classes and the preprocessing of the run."""
    if config.names is not None:
        set_fact(model, "classes", config.names)
    if config.preprocess_value is not None:
        set_fact(model, "preprocess", config.preprocess_value)
    adopt_thresholds(model, config)


def _check_buildable(folder: RunFolder, config: ModelConfig, model: nn.Module | None) -> None:
    if model is None and config.model is None:
        raise WeightsError(
            f"{folder.path} holds a model whose class is not registered. Build the model and pass it as model=, for "
            "example zoo.load(folder, model=...)."
        )


def _find_weights(folder: RunFolder, config: ModelConfig, name: str) -> ResolvedWeights:
    weights = folder.file(name)
    if name == LAST and not weights.is_file():
        raise WeightsError(
            f"{folder.path} has no {LAST}: runs write it with keep=both only, beside the best epoch. Load "
            f"{folder.path}, which has one set of weights."
        )
    if not weights.is_file():
        left = "the run was interrupted; resume it" if folder.file(STATE).is_file() else "the folder is incomplete"
        raise WeightsError(f"{folder.path} has no model.safetensors: {left}.")
    check_checksum(weights)
    place = str(folder.path if name == WEIGHTS else weights)
    return ResolvedWeights(weights, None, place, None, digest_file(weights), config.licence, pinned=True)


def _without_wrappers(found: ResolvedWeights, network: nn.Module) -> ResolvedWeights:
    """Take off what `torch.compile` and `DataParallel` put into the names of runs that earlier versions saved."""
    own = network.state_dict().keys()
    named = {name: name if name in own else _WRAPPER.sub("", name) for name in found.shapes()}
    if all(name == given for name, given in named.items()) or not own >= set(named.values()):
        return found
    tensors = {named[name]: tensor for part in found.parts() for name, tensor in part.items()}
    return replace(found, foreign=tensors) if len(tensors) == len(named) else found
