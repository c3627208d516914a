"""The page of a published model: `README.md` with metadata that the Hub reads, and what a reader has to know.

Everything in it is taken from the files of the run, nothing is judged. The metadata follow the Hub's model cards,
https://huggingface.co/docs/hub/model-cards.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo._text import clean
from zoo.models import Entry, ModelConfig
from zoo.rates import NO_DECAY
from zoo.settings import Preset
from zoo.tasks import CardFacts, task_names, task_of
from zoo.weights import find_terms

LIBRARY = "zoo-finetune"
CAPTIONS = {"curves": "Loss and scores over the epochs", "rates": "Learning rates over the steps"}
MOST_CLASSES = 50  # in a table or a list


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is known of a model that is published; what a folder does not hold is None or empty.

    Attributes:
        repo: Where it goes, `org/name`.
        config: As in its `config.json`.
        entry: The registry's.
        parents: Repositories that its weights were loaded from.
        preset: The effective one.
        plan: As in `plan.json`.
        proof: As in `proof.json`.
        data: As in `data.json`.
        evaluation: As in `evaluation.json`.
        pictures: Paths in the repository.
    """

    repo: str
    config: ModelConfig
    entry: Entry
    parents: tuple[str, ...] = ()
    preset: Preset | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()

    @property
    def facts(self) -> CardFacts:
        """What the card says of the task, which the registry knows: the configuration may come from anywhere."""
        said = self.config.task
        is_variant = said in task_names() and said.partition(".")[0] == self.entry.task
        return task_of(said if is_variant else self.entry).card

    @property
    def dataset(self) -> str | None:
        """Name of the data; None if it has none."""
        return name_data(self.data.get("source"))

    @property
    def scores(self) -> dict[str, float]:
        """Key to score, 0 to 1, of the scores that a card tells; top-5 only where there are more than five classes."""
        few = (self.config.num_classes or 0) <= 5
        wanted = [key for key in self.facts.scores if not (few and key == "top5")]
        return {key: self.evaluation[key] for key in wanted if _is_share(self.evaluation.get(key))}


def name_data(source: Any) -> str | None:
    """Return the last part of a path, whose other parts stay at home; None if it has no name."""
    text = str(source or "")
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return last if last != text and re.fullmatch(r"[\w. -]{1,96}", last) else None


def write_card(trained: Trained) -> str:
    """Return the page, checked for the form that the Hub expects."""
    from huggingface_hub import ModelCard

    parts = [_title(trained), _use(trained), _results(trained), _training(trained), _input(trained), _terms(trained)]
    parts += [_plots(trained)]
    text = "\n\n".join(part for part in parts if part)
    page = clean(f"---\n{_metadata(trained)}\n---\n\n{text}\n", keep="\n")  # who reads it in a terminal is safe
    return str(ModelCard(page))


def _metadata(trained: Trained) -> str:
    from huggingface_hub import ModelCardData

    config = trained.config
    facts: dict[str, Any] = {
        "library_name": LIBRARY,
        "pipeline_tag": trained.facts.pipeline,
        "tags": ["zoo", trained.entry.task, _safe_tag(trained.entry.name)],
        "base_model": list(trained.parents) or None,
        "base_model_relation": "finetune" if trained.parents else None,
        "datasets": [trained.dataset] if trained.dataset else None,
        "metrics": list(dict.fromkeys(trained.facts.scores[key][0] for key in trained.scores)) or None,
        **licence_facts(config.licence),
    }
    if results := _results_for_hub(trained):
        facts |= {"model_name": trained.repo.partition("/")[2], "eval_results": results}
    return str(ModelCardData(**facts).to_yaml())


def licence_facts(licence: str | None) -> dict[str, str]:
    """Return what the metadata of a card say of a licence, as the Hub wants it."""
    if licence in (None, "unknown"):
        return {}
    terms = find_terms(str(licence))
    if terms.on_hub:
        return {"license": str(licence).lower()}
    return {"license": "other", "license_name": str(licence)} | ({"license_link": terms.link} if terms.link else {})


def _results_for_hub(trained: Trained) -> list[Any]:
    from huggingface_hub import EvalResult

    task = trained.facts
    where: dict[str, Any] = {
        "task_type": task.pipeline,
        "dataset_type": trained.dataset or task.dataset,
        "dataset_name": trained.dataset or "custom data",
        "dataset_split": "validation",
    }
    return [
        EvalResult(
            metric_type=task.scores[key][0], metric_name=task.scores[key][1], metric_value=round(value, 4), **where
        )
        for key, value in trained.scores.items()
    ]


def _title(trained: Trained) -> str:
    config, repo = trained.config, trained.repo
    count, what = config.num_classes or 0, trained.facts.noun
    on = f" on {_escape(trained.dataset)}" if trained.dataset else ""
    how = "fine-tuned" if trained.parents or config.origin.get("weights") else "trained from random weights"
    if not trained.plan:
        how = "saved"
    names = ", ".join(map(_escape, (config.classes or [])[:MOST_CLASSES])) + (", …" if count > MOST_CLASSES else "")
    return (
        f"# {repo.partition('/')[2]}\n\n`{config.model}`, a {what} of {count:,} classes, {how}{on} with zoo "
        f"{_escape(config.zoo)}.\n\nClasses: {names}."
    )


def _use(trained: Trained) -> str:
    config, repo = trained.config, trained.repo
    need = ""
    if config.origin.get("registered"):
        need = f"`{config.model}` is a custom model class: import the module that registers it first.\n\n"
    return f"""\
## Use it

{need}```python
import zoo

model = zoo.get("{repo}")  # or "{repo}@<commit>", which never changes
for answer in model.predict("photo.jpg"):
    print(answer)
```

```sh
zoo finetune {config.model} path/to/images --weights {repo}  # fine-tune it further
```

Files: `model.safetensors` and `config.json` are the model; the others document its training."""


def _results(trained: Trained) -> str:
    if not trained.scores:
        return ""
    task, images = trained.facts, trained.evaluation.get("images")
    on = f"{images:,} " if isinstance(images, int) else ""
    lines = [f"## Scores on {on}validation images", "", "| score | |", "|---|---|"]
    lines += [f"| {task.scores[key][1]} | {value:.2%} |" for key, value in trained.scores.items()]
    rows = [
        {task.former.get(key, key): value for key, value in row.items()}
        for row in (trained.evaluation.get("per_class") or [])[:MOST_CLASSES]
    ]
    if rows:
        titles = {key: title for key, title in task.columns.items() if key in rows[0]}
        lines += ["", _row(titles.values()), _row(["---"] * len(titles))]
        lines += [_row(_cell(row.get(key)) for key in titles) for row in rows]
    return "\n".join(lines)


def _training(trained: Trained) -> str:
    groups = trained.plan.get("groups")
    if not groups:
        return ""
    parts = ["## How it was trained", _counts(trained), _settings(trained), _rates(groups)]
    frozen = [group for group in groups if group.get("frozen")]
    count, total = (sum(int(group.get("parameters", 0)) for group in some) for some in (frozen, groups))
    told = f"{count:,} of {total:,} parameters were frozen"
    moments = trained.proof.get("moments") or ()
    if tensors := trained.proof.get("tensors"):
        told += f": {tensors} tensors had identical checksums at {len(moments)} checks, the last one in the saved file"
    return "\n\n".join(part for part in [*parts, f"{told}." if frozen else "Nothing was frozen."] if part)


def _counts(trained: Trained) -> str:
    """Tell how much data there was: images or boxes per class and split."""
    counts = trained.data.get("counts")
    if not counts:
        return ""
    names = list(dict.fromkeys(name for of in counts.values() for name in of))
    what = trained.facts.counted if "images" in trained.data else "images"
    lines = [_row([what, *counts]), _row(["---"] * (len(counts) + 1))]
    lines += [_row([_escape(name), *(_cell(of[name]) for of in counts.values())]) for name in names[:MOST_CLASSES]]
    lines += [_row(["all classes", *(_cell(sum(of.values())) for of in counts.values())])]
    if images := trained.data.get("images"):
        lines += [_row(["images", *(_cell(images[name]) for name in counts)])]
    return "\n".join(lines)


def _settings(trained: Trained) -> str:
    if (preset := trained.preset) is None:
        return ""
    kind = _escape(preset.schedule) if isinstance(preset.schedule, str) else "custom (see `preset.yaml`)"
    return (
        f"{preset.epochs} epochs in batches of {preset.batch_size}, optimizer {_escape(preset.optimizer)}, schedule "
        f"{kind}, seed {preset.seed}. All settings are in `preset.yaml`; `zoo finetune {trained.config.model} DATA "
        "--preset preset.yaml` trains with the same settings."
    )


def _rates(groups: Sequence[Mapping[str, Any]]) -> str:
    """Tell the rate of each group at full strength; the halves with and without weight decay are one row."""
    rows: dict[tuple[str, str], int] = {}
    for group in groups:
        name = str(group.get("name", "")).removesuffix(NO_DECAY)
        rate = float(group.get("lr", 0)) * float(group.get("lr_scale", 1))
        state = "frozen" if group.get("frozen") else f"{rate:g}"
        if not group.get("frozen") and (epoch := group.get("unfreeze_at")):
            state += f", from epoch {epoch}"
        rows[name, state] = rows.get((name, state), 0) + int(group.get("parameters", 0))
    lines = ["| parameters | count | learning rate |", "|---|---|---|"]
    return "\n".join([*lines, *(_row([_code(name), f"{many:,}", state]) for (name, state), many in rows.items())])


def _input(trained: Trained) -> str:
    preprocess = trained.config.preprocess_value
    if preprocess is None:
        return ""
    text = f"Images of any size, {preprocess.describe()}"
    return f"## Input\n\n{text}. `predict` does this; `config.json` has the details."


def _terms(trained: Trained) -> str:
    config, entry = trained.config, trained.entry
    lines = ["## Origin and licence", ""]
    if weights := config.origin.get("weights"):
        named = {"commit": config.origin.get("revision"), "SHA-256": config.origin.get("sha256")}
        exact = [f", {what} `{value}`" for what, value in named.items() if re.fullmatch("[0-9a-f]{40,64}", str(value))]
        where = weights if re.fullmatch(r"https?://[\w./:-]+", str(weights)) else _escape(weights)
        lines += [f"- Fine-tuned from {where}{''.join(exact)}."]
    licence = config.licence
    if licence in (None, "unknown"):
        known = "not stated" if weights else "not chosen: the model was trained from random weights"
        lines += [f"- Licence of the weights: {known}."]
    else:
        terms = find_terms(str(licence))
        name = _escape(terms.name) + (f" ({terms.link})" if terms.link else "")
        lines += [
            f"- Licence of the weights, inherited from the pretrained weights: {name}. {_first_upper(terms.words)}."
        ]
    lines += [f"- Licence of the code of `{config.model}`: {entry.code_licence}."]
    caveat = getattr(entry.weights, "caveat", "")
    if caveat and getattr(entry.weights, "repo", None) in trained.parents:  # it began with the registry's own weights
        lines += [f"- {_first_upper(caveat)}."]
    return "\n".join(lines)


def _plots(trained: Trained) -> str:
    lines, captions = [], CAPTIONS | dict(trained.facts.captions)
    for path in trained.pictures:
        stem = re.split(r"[/.]", path)[-2]
        lines += [f"![{captions.get(stem, stem)}]({path})"]
    return "\n\n".join(["## Plots", *lines]) if lines else ""


def _is_share(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else _escape(str(value))


def _escape(text: object) -> str:
    """Return a name as it looks, whatever it would mean in Markdown or HTML."""
    plain = " ".join(clean(str(text)).split())
    return re.sub(r"([\\`*_\[\]<>|#!])", r"\\\1", plain)


def _code(text: str) -> str:
    """Return a name as code, in a cell of a table: nothing ends either of them."""
    return f"`{' '.join(clean(text).split()).replace('`', chr(39)).replace('|', '/')}`"


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _safe_tag(text: str) -> str:
    return text.replace("/", "-")
