"""`report.html`: a run on one page, for people who do not have the folder.

The page is made of the files of the run alone, so that a run of today and one of an earlier version get the same page.
It stands in this package, not among the exporters: every run writes it when it ends, and exporters are above runs.
Curves and matrices are drawn anew, in the colours of the page; of the run's plots, those with images are embedded as
JPEG, at most 1,400 pixels wide: some 100 to 500 kB each.
"""

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from zoo.errors import ZooError
from zoo.files import dump_json, parse_object, read_regular, write_file
from zoo.pages import (
    Markup,
    code,
    draw_lines,
    draw_matrix,
    embed_image,
    escape,
    join,
    list_facts,
    make_fragment,
    make_page,
    make_table,
)
from zoo.progress import format_rate, format_seconds
from zoo.rates import NO_DECAY, UNUSED
from zoo.tasks import find_scores, task_of
from zoo.training.kept_weights import KeptWeights
from zoo.training.report_style import STYLE
from zoo.training.run_folder import WEIGHTS
from zoo.training.run_records import MAX_BYTES, parse_rates, read_run_file
from zoo.training.run_summary import RunSummary, read_defaults, summarize_run
from zoo.weights import find_terms

REPORT = "report.html"
PHOTO_WIDTH, PHOTO_QUALITY = 1400, 80
MOST_CELLS = 40  # classes of a matrix that is drawn; of larger ones the plot is shown
BACKGROUND = "background"
PICTURES = {
    "curves": "Loss and scores over the epochs",
    "rates": "Learning rates over the steps",
    "penalty": "L2 penalty of the head, chosen by cross-validation within the training images",
}
PLOT_ORDER = ("mistakes", "predictions", "by_confidence", "confusion", "cooccurrence", "first_batch", "augment")
FLAT = {
    "curves",
    "rates",
    "penalty",
    "confusion",
    "cooccurrence",
    "precision_recall",
    "by_confidence",
    "class_ap",
}  # no photographs in them

Section = tuple[str, Markup]


def write_report(folder: Path) -> Path:
    """Write the report of a run into its folder, and return its path.

    Args:
        folder: Of a run, finished or not; what of it is missing or damaged is left out of the page.

    Raises:
        StorageError: It cannot be written.
    """
    run = summarize_run(folder)
    assert run is not None
    path = folder / REPORT
    write_file(path, make_report(run))
    return path


def make_report(run: RunSummary) -> str:
    """Return the page of a run."""
    name = run.folder.absolute().name
    parts: list[object] = [_try(partial(_head, run, name))]
    for title, body in _sections(run):
        anchor = re.sub(r"\W+", "-", title.lower())
        parts.append(Markup(f'<section id="{anchor}"><h2>{escape(title)}</h2>{body}</section>'))
    version = run.config.get("zoo") or "?"
    parts.append(Markup(f"<footer>made from the files of the run by zoo {escape(version)}</footer>"))
    return make_page(f"{name}: {run.model or 'custom model'}", STYLE, parts)


def show_run(folder: Path) -> str:
    """Return scores, curves and scores per class of a run, as a notebook shows them."""
    run = summarize_run(folder)
    assert run is not None
    parts = [_tell_scores(run), _try(partial(_show_training, run)), _try(partial(_show_classes, run))]
    facts = list_facts({"report": folder / REPORT})
    return make_fragment(f"run in {folder}", join([*filter(None, parts), facts], "<br>"))


def _sections(run: RunSummary) -> Iterator[Section]:
    """Yield the title and the content of what there is to say."""
    plots = _find_plots(run.folder)
    for title, make in (
        ("Training", partial(_show_training, run)),
        ("Learning rate plan", partial(_show_plan, run)),
        ("Confusion matrix", partial(_show_confusion, run)),
        ("Precision and recall at IoU 0.5", partial(_show_precision, run)),
        ("Scores per class", partial(_show_classes, run)),
    ):
        if body := _try(make):
            yield title, body
            plots = [name for name in plots if name not in _DRAWN.get(title, ())]
    yield from _show_plots(run, plots)
    for title, tell in _FACTS:
        if body := _try(partial(tell, run)):
            yield title, body


def _try(make: Callable[[], Markup | None]) -> Markup | None:
    """Return a part of the page, or why it is missing: a file of the folder may hold anything."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return Markup(f"<p>cannot be shown: a file of the run is damaged ({escape(repr(error))})</p>")


_DRAWN = {
    "Training": ("curves", "rates"),
    "Confusion matrix": ("confusion",),
    "Precision and recall at IoU 0.5": ("precision_recall",),
    "Scores per class": ("class_ap",),
}


def _head(run: RunSummary, name: str) -> Markup:
    """The name, the scores in large letters, and what should be known of them."""
    record = _read(run, "run.json")
    planned = run.settings.get("epochs")
    seconds = sum(float(entry.get("seconds", 0)) for entry in run.records)
    facts = [
        f"{run.scores['images']:,} validation images" if "images" in run.scores else "",
        f"{run.epochs} of {planned} epochs" if run.epochs != planned else f"{run.epochs} epochs",
        _tell_time(seconds) if seconds else "",
        str(run.started or "")[:16].replace("T", " ") + " UTC" * bool(run.started),
    ]
    notes = [*record.get("warnings", ()), record.get("stopped_early"), run.problem]
    if run.status != "finished":
        notes.append(f"the run is {run.status}")
    told = join([Markup(f"<p class='note'>{escape(note)}</p>") for note in notes if note])
    data = Path(str(run.data.get("source", ""))).name
    title = f"{run.model or 'custom model'}{' on ' * bool(data)}{data}"
    facts.append(str(KeptWeights.find(run.evaluation, WEIGHTS) or ""))
    return Markup(
        f"<header><p class='run'>{escape(name)}</p><h1>{escape(title)}</h1>"
        f"{_tell_scores(run)}<p class='facts'>{escape(' · '.join(filter(None, facts)))}</p>{told}</header>"
    )


def _tell_scores(run: RunSummary) -> Markup:
    """The scores in large letters."""
    labels = find_scores().get(run.task, {})
    scores = {label: f"{run.scores[key]:.1%}" for key, label in labels.items() if key in run.scores}
    cards = [
        f"<div class='card{' first' * (not number)}'><b>{value}</b><span>{escape(label)}</span></div>"
        for number, (label, value) in enumerate(scores.items())
    ]
    return Markup(f"<div class='cards'>{''.join(cards) or 'not evaluated'}</div>")


def _show_training(run: RunSummary) -> Markup | None:
    """Loss, scores and rates."""
    if not run.records:
        return None
    losses = {"training": "loss", "validation": "val_loss"}
    losses |= {key.removeprefix("val_loss_"): key for record in run.records for key in record if "val_loss_" in key}
    labels = find_scores().get(run.task, {})
    loss = {name: _column(run, key) for name, key in losses.items()}
    scores = {label: _column(run, key) for key, label in labels.items()}
    charts = [("Loss", draw_lines(loss, across="epoch", show="{:.4g}".format))]
    if any(scores.values()):
        charts.append(("Validation scores", draw_lines(scores, across="epoch", show=_percent)))
    return _lay_out(charts)


def _show_plan(run: RunSummary) -> Markup | None:
    groups = _read(run, "plan.json").get("groups")
    if not groups:
        return None
    moving: dict[str, Mapping[float, float]] = {}
    for name, values in _read_rates(run).items():
        if any(values):
            moving.setdefault(name.removesuffix(NO_DECAY), dict(enumerate(values, start=1)))
    chart = draw_lines(moving, across="step", show=format_rate, logarithmic=True, limits=(0, None))
    return join([_tabulate(groups), _lay_out([("Over the steps", chart)])] if moving else [_tabulate(groups)], "<br>")


def _tabulate(groups: Sequence[Mapping[str, Any]]) -> Markup:
    """Who learns, and how fast."""
    total = sum(group["parameters"] for group in groups)
    trained = sum(group["parameters"] for group in groups if not group["frozen"])
    rows = []
    for group in groups:
        learns = not group["frozen"]
        rate = float(group["lr"]) * float(group.get("lr_scale", 1)) if learns else 0
        unfreeze = group.get("unfreeze_at")
        state = "trained" if learns else "unused in training" if group["name"].endswith(UNUSED) else "frozen"
        state = f"from epoch {unfreeze}" if learns and unfreeze else state
        row = {
            "group": group["name"],
            "state": Markup(f"<span class='{'on' if learns else 'off'}'>{escape(state)}</span>"),
            "parameters": f"{group['parameters']:,}",
            "share": _bar(group["parameters"] / total),
            "peak lr": format_rate(rate) if learns else "-",
            "weight decay": f"{group.get('weight_decay', 0):g}" if learns else "-",
            "schedule": (group.get("schedule") or {}).get("kind", "-") if learns else "-",
        }
        rows.append(row)
    totals = {"group": "total", "state": f"{trained / total:.2%} trained", "parameters": f"{total:,}"}
    return make_table(rows, totals)


def _show_confusion(run: RunSummary) -> Markup | None:
    counts = run.evaluation.get("confusion")
    names = [str(row["class"]) for row in run.evaluation.get("per_class", ())]
    if not counts or not names or len(names) > MOST_CELLS:
        return None
    names += [BACKGROUND] * (len(counts) - len(names))
    if any(len(row) != len(names) for row in counts) or len(counts) != len(names):
        return None
    note = Markup("<p class='hint'>rows: true class, columns: predicted class; rest the pointer on a cell</p>")
    return join([Markup(f"<div class='scroll'>{draw_matrix(counts, names)}</div>"), note])


def _show_precision(run: RunSummary) -> Markup | None:
    curves = run.evaluation.get("precision")
    if not isinstance(curves, Mapping) or not curves:
        return None
    lines: dict[str, Mapping[float, float]] = {
        str(name): {float(place): value for place, value in enumerate(map(float, values)) if value or not place}
        for name, values in curves.items()
    }
    chart = draw_lines(lines, across="recall, %", show=_percent, limits=(0, 1.02), ends=(0, 100))
    return _lay_out([("", chart)])


def _show_classes(run: RunSummary) -> Markup | None:
    card = task_of(run.task).card
    rows = [
        {card.former.get(key, key): value for key, value in row.items()}
        for row in run.evaluation.get("per_class") or ()
    ]
    if not rows:
        return None

    def show(value: Any) -> object:
        if isinstance(value, float):
            return Markup(f"<span class='score'>{_bar(value)} {value:.1%}</span>")
        return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    titles = {key: title for key, title in card.columns.items() if key in rows[0]}
    return make_table([{title: show(row.get(key)) for key, title in titles.items()} for row in rows])


def _show_plots(run: RunSummary, names: Sequence[str]) -> Iterator[Section]:
    captions = PICTURES | dict(task_of(run.task).card.captions)
    for name in names:
        with suppress(ZooError, OSError, ValueError):
            content = read_run_file(run.folder, f"pictures/{name}.png")
            caption = captions.get(name, name.replace("_", " ").capitalize())
            yield caption, Markup(f"<div class='sheet'>{_embed(name, content, caption)}</div>")


def _embed(name: str, content: bytes, caption: str) -> Markup:
    """Embed a plot: lines and letters as they are, photographs smaller."""
    if name in FLAT:
        return embed_image(content, "png", caption, style="flat")
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        image = opened.convert("RGB")
    if image.width > PHOTO_WIDTH:
        size = (PHOTO_WIDTH, round(image.height * PHOTO_WIDTH / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=PHOTO_QUALITY)
    return embed_image(buffer.getvalue(), "jpeg", caption)


def _tell_data(run: RunSummary) -> Markup:
    data = run.data
    counts = data.get("counts", {})
    weights = data.get("class_weights", {})
    names = list(map(str, data["classes"]))
    rows: list[dict[str, object]] = [
        {"class": name}
        | {split: f"{of.get(name, 0):,}" for split, of in counts.items()}
        | ({"weight": f"{weights[name]:.3g}"} if name in weights else {})
        for name in names
    ]
    totals: dict[str, object] = {"class": "all"} | {split: f"{sum(of.values()):,}" for split, of in counts.items()}
    facts: dict[str, object] = {"source": data["source"], "format": data.get("format", "")}
    if images := data.get("images"):
        facts["images"] = ", ".join(f"{count:,} {split}" for split, count in images.items())
    facts["skipped"] = f"{len(data['skipped']):,} images" if data.get("skipped") else ""
    facts |= {str(kind): f"{count:,}" for kind, count in data.get("findings", {}).items()}
    facts["digest"] = code(data.get("digest") or "-")
    table = make_table(rows, totals, most=60) if counts else ""
    return join([list_facts({name: text for name, text in facts.items() if text}), table], "<br>")


def _tell_settings(run: RunSummary) -> Markup | None:
    """The settings that are not the defaults."""
    defaults = read_defaults()
    changed = {name: value for name, value in run.settings.items() if value != defaults.get(name)}
    rows = {name: code(value if isinstance(value, str) else dump_json(value)) for name, value in changed.items()}
    return list_facts(rows) if rows else None


def _tell_proof(run: RunSummary) -> Markup | None:
    proof = _read(run, "proof.json")
    moments = proof.get("moments") or ()
    if not proof.get("tensors") or not moments:
        return None
    rows = [
        {"checked": moment["when"], "SHA-256 of all frozen tensors": code(str(moment.get("sha256", "-"))[:16])}
        for moment in moments
    ]
    same = f"{proof['tensors']:,} frozen tensors: the checksum of each was compared {len(moments)} times"
    return join([Markup(f"<p>{escape(same)}, and none had changed.</p>"), make_table(rows, most=40)])


def _tell_weights(run: RunSummary) -> Markup:
    config = run.config
    origin, licence = config.get("origin", {}), config.get("licence")
    facts: dict[str, object] = {"started from": origin.get("weights") or "random weights"}
    facts |= {
        name: code(origin[key]) for name, key in (("revision", "revision"), ("SHA-256", "sha256")) if origin.get(key)
    }
    if licence in (None, "unknown"):
        facts["licence"] = "not stated" if origin.get("weights") else "none: trained from random weights"
    else:
        terms = find_terms(str(licence))
        facts["licence"] = terms.name
        facts["it says"] = terms.words
        facts["its text"] = terms.link or "unknown"
    if parent := _read(run, "parent.json"):
        facts["goes on from"] = parent.get("folder") or parent.get("run") or dump_json(parent)
    return list_facts(facts)


def _tell_environment(run: RunSummary) -> Markup | None:
    found = _read(run, "environment.json")
    if not found:
        return None
    versions = found.get("versions", {})
    facts: dict[str, object] = {
        name: str(found[key])
        for name, key in {
            "device": "device",
            "CPU threads": "threads",
            "system": "platform",
            "Python": "python",
        }.items()
        if found.get(key) is not None
    }
    facts["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    facts["command"] = code(" ".join(map(str, found.get("command", ()))))
    return list_facts(facts)


_FACTS: tuple[tuple[str, Callable[[RunSummary], Markup | None]], ...] = (
    ("Data", _tell_data),
    ("Settings", _tell_settings),
    ("Proof of freezing", _tell_proof),
    ("Weights and licence", _tell_weights),
    ("Environment", _tell_environment),
)


def _find_plots(folder: Path) -> list[str]:
    """Return the names of the run's plots, without their endings, the most telling first."""
    with suppress(OSError):
        found = sorted(path.stem for path in (folder / "pictures").glob("*.png"))
        return sorted(found, key=lambda name: PLOT_ORDER.index(name) if name in PLOT_ORDER else len(PLOT_ORDER))
    return []


def _read(run: RunSummary, name: str) -> dict[str, Any]:
    """Return a JSON file of the run; empty if it is not there, damaged, or a link to somewhere else."""
    if os.path.lexists(run.folder / name):
        with suppress(ZooError):
            return dict(parse_object(read_run_file(run.folder, name)))
    return {}


def _read_rates(run: RunSummary) -> dict[str, list[float]]:
    with suppress(OSError, ValueError, ZooError):
        return parse_rates(read_regular(run.folder / "rates.csv", max_bytes=MAX_BYTES).decode())
    return {}


def _lay_out(charts: Sequence[tuple[str, Markup]]) -> Markup:
    """Return charts side by side, as far as there is room."""
    figures = [f"<figure>{f'<h3>{title}</h3>' * bool(title)}{chart}</figure>" for title, chart in charts]
    return Markup(f"<div class='charts'>{''.join(figures)}</div>")


def _tell_time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{format_seconds(seconds)} {'h' if seconds >= 3600 else 'min'}"


def _column(run: RunSummary, key: str) -> dict[float, float]:
    return {record["epoch"]: record[key] for record in run.records if isinstance(record.get(key), float)}


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _bar(share: float) -> Markup:
    return Markup(f'<span class="bar"><i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></span>')
