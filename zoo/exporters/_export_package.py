"""What of an export goes to a Hub: its files as they are, once they have been opened, and its page with its parity."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo._text import clean
from zoo.errors import InputError
from zoo.exporters._card import LIBRARY, licence_facts
from zoo.exporters._facts import CONFIG
from zoo.exporters._open import is_exported, list_files, name_parts, open_graph
from zoo.exporters._package import CARD, Package, check_licence, list_packed, refuse_traces, take_file
from zoo.files import check_checksum, read_object, to_path, write_checksums, write_file
from zoo.models import Entry, ModelConfig, find_entry
from zoo.tasks import task_of
from zoo.weights import find_terms

PARITY, PROGRAM = "parity.json", "predict.py"
USE = """\
## Use it with zoo

```python
import zoo

model = zoo.get("{repo}")  # or "{repo}@<commit>", which never changes
for answer in model.predict("photo.jpg"):
    print(answer)
```"""


def find_export(source: Any) -> Path | None:
    """Return the folder of an export, given that, what `zoo.export` returned, or a model of it; None for all else."""
    place = getattr(source, "folder", source)
    if not isinstance(place, (str, os.PathLike)) or not (to_path(place) / CONFIG).is_file():
        return None
    return to_path(place) if is_exported(place) else None


def pack_export(source: Path, folder: Path, *, repo: str) -> Package:
    """Write what may go of an export into an empty folder.

    Args:
        source: The folder of the export.
        folder: An empty folder.
        repo: Where it will go, `org/name`, for its card.

    Raises:
        InputError: A file is missing, damaged, or not what it says, or a text in it tells of this machine.
        LicenceError: The licence of the weights forbids to pass them on.
    """
    files = list_files(source)
    opened = [open_graph(file) for file in files]  # what goes is whole
    configs = [facts.config for _, facts in opened]
    for config in configs:
        check_licence(config, _find_known(config.model), None)
    names = [name for file in files for name in name_parts(file)]
    for name in (*names, CONFIG, PARITY, PROGRAM, CARD):
        if not (source / name).is_file():
            raise InputError(f"{source} has no {name}, which every export has. Export the model again.")
        check_checksum(source / name)
        if name != CARD:
            take_file(source / name, folder / name)
    parity = _read_parity(source / PARITY)
    page = (source / CARD).read_text("utf8", "replace")
    write_file(folder / CARD, _write_card(repo, configs[0], sorted({file.suffix[1:] for file in files}), page))
    refuse_traces(folder, {graph.path.name: graph.facts for graph, _ in opened}, source)
    write_checksums(folder, [name for name, _ in list_packed(folder) if name != CARD])
    notes = tuple(f"the answers of {name} differ from the model's" for name, found in parity.items() if not found)
    packed = tuple(sorted(list_packed(folder)))
    return Package(folder, packed, f"{configs[0].model or 'a model'}, exported", configs[0].licence, notes)


def _find_known(name: str | None) -> Entry | None:
    """Return the registry's entry; an exported model can be used without one."""
    try:
        return find_entry(name or "")
    except InputError:
        return None


def _read_parity(path: Path) -> dict[str, bool]:
    """Return for each file whether its answers are those of the model."""
    try:
        found = read_object(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. Export the model again.") from error
    return {name: bool(of.get("holds")) for name, of in found.items() if isinstance(of, Mapping)}


def _write_card(repo: str, config: ModelConfig, kinds: list[str], page: str) -> str:
    """Return the page of the export, with its terms, how to load it, and metadata that the Hub reads."""
    from huggingface_hub import ModelCard, ModelCardData

    told: dict[str, Any] = {"pipeline_tag": task_of(config.task).card.pipeline, "tags": ["zoo", config.task, *kinds]}
    facts = ModelCardData(library_name=LIBRARY, **(told | licence_facts(config.licence)))
    parts = [page.rstrip(), USE.format(repo=repo)]
    if config.licence:
        terms = find_terms(config.licence)
        parts += [f"## Licence\n\n{terms.name}{f' ({terms.link})' if terms.link else ''}: {terms.words}."]
    text = "\n\n".join(parts)
    return str(ModelCard(clean(f"---\n{facts.to_yaml()}\n---\n\n{text}\n", keep="\n")))
