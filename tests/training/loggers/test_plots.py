import os
import warnings

import matplotlib
import numpy as np
import pytest

from figure_checks import build, is_drawn, names_on, texts
from training.loggers.contract import follow, make_records
from zoo._figures import MOST_POINTS
from zoo.training.loggers import plots
from zoo.training.loggers.plots import Plots, draw_curves, draw_rates
from zoo.training.run_stage import read_record

pytestmark = pytest.mark.plots

SCORES = {"top1": "top-1", "top5": "top-5"}


def records(epochs, **changes):
    scores = [{"val_loss": 2 / e, "top1": 0.9 - 0.4 / e, "top5": 0.99 - 0.09 / e} for e in range(1, epochs + 1)]
    return [{"epoch": i + 1, "loss": 2.3 / (i + 1), **score, **changes} for i, score in enumerate(scores)]


@pytest.mark.parametrize("epochs", [1, 30, 300])
def test_curves_show_loss_and_accuracy(epochs):
    figure = build(plots._draw_curves, records(epochs), SCORES)
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["top-5", "top-1"]
    assert len(loss.lines[0].get_xdata()) == epochs
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert f"Best top-1 {90 - 40 / epochs:.1f} %, epoch {epochs}" in accuracy.get_title(loc="left")
    assert all(float(name).is_integer() for name in names_on(loss.xaxis))
    assert accuracy.get_ylim()[1] <= 101


@pytest.mark.parametrize("epochs", [1, 30])
def test_the_terms_of_a_loss_are_drawn_beside_it(epochs):
    some = records(epochs, val_loss_iou=0.5, val_loss_dfl=0.25)
    loss, _ = build(plots._draw_curves, some, SCORES).axes
    names = [line.get_label() for line in loss.lines]
    assert names == ["training", "validation", "validation: iou", "validation: dfl"]
    assert list(loss.lines[3].get_ydata()) == [0.25] * epochs


def test_curves_skip_epochs_that_were_not_evaluated():
    some = records(6)
    for record in some[::2]:
        for key in ("val_loss", "top1", "top5"):
            del record[key]
    loss, accuracy = build(plots._draw_curves, some, SCORES).axes
    assert list(loss.lines[1].get_xdata()) == [2, 4, 6]
    assert list(accuracy.lines[0].get_xdata()) == [2, 4, 6]


def test_curves_without_evaluation_or_epochs_say_so():
    plain = [{"epoch": 1, "loss": 2.0, "val_loss": None, "top1": None}]
    assert "not evaluated" in texts(build(plots._draw_curves, plain, SCORES))
    assert "no epochs" in texts(build(plots._draw_curves, [], SCORES))


def test_curves_of_a_loss_that_is_no_number_are_drawn(tmp_path):
    assert is_drawn(draw_curves(records(3, loss=float("nan")), tmp_path / "curves.png", scores=SCORES))


def test_equal_losses_do_not_look_far_apart():
    loss, _ = build(plots._draw_curves, [{"epoch": 1, "loss": 2.001, "val_loss": 2.002, "top1": 0.1}], SCORES).axes
    bottom, top = loss.get_ylim()
    assert top - bottom >= 0.09


def cosine(peak, steps=100):
    return list(peak * (0.01 + 0.495 * (1 + np.cos(np.pi * np.arange(steps) / steps))))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("peaks", "scale"), [([0.01], "linear"), ([0.01, 0.001], "linear"), ([0.01, 1e-4], "log")])
def test_the_axis_of_rates_is_logarithmic_only_if_groups_are_far_apart(peaks, scale):
    figure = build(plots._draw_rates, {f"g{i}": cosine(peak) for i, peak in enumerate(peaks)}, 10)
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "learning rate")
    assert legend(figure)[0] == "g0: 0.01"
    assert not any("$" in name for name in names_on(axes.yaxis))


def test_a_second_axis_counts_epochs():
    (axes,) = build(plots._draw_rates, {"head": cosine(0.01, 200)}, 50).axes
    (top,) = axes.child_axes
    assert top.get_xlabel() == "epoch"
    assert top.get_xlim()[1] == pytest.approx(axes.get_xlim()[1] / 50)


def test_frozen_groups_are_named_and_equal_groups_share_a_line():
    rates = {"head": cosine(0.01), "head (no decay)": cosine(0.01), "stem": [0.0] * 100, "default": [0.0] * 100}
    figure = build(plots._draw_rates, rates, 10)
    assert legend(figure) == ["head, head (no decay): 0.01", "stem, default: frozen"]


def test_rates_that_reach_zero_are_drawn_on_a_logarithmic_axis():
    rates = {"head": [0.0, 0.01, 0.005, 0.0], "default": [0.0, 1e-4, 5e-5, 0.0], "stem": [0.0] * 4}
    figure = build(plots._draw_rates, rates, 2)
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylim()[0] > 1e-7


@pytest.mark.parametrize("groups", [12, 60])
def test_many_groups_have_a_legend_that_fits(groups):
    rates = {f"blocks.{i}.a.very.long.name.of.a.group": cosine(0.01 * 0.8**i) for i in range(groups)}
    figure = build(plots._draw_rates, rates, 10)
    assert len(legend(figure)) == min(groups, 20)
    assert ("... and 40 more" in legend(figure)[-1]) == (groups == 60)
    assert len({tuple(line.get_color()) for line in figure.axes[0].lines}) == groups


def test_long_runs_are_thinned_but_keep_their_ends():
    (axes,) = build(plots._draw_rates, {"head": cosine(0.01, 50_000)}, 1000).axes
    steps = axes.lines[0].get_xdata()
    assert len(steps) <= MOST_POINTS
    assert (steps[0], steps[-1]) == (1, 50_000)


@pytest.mark.parametrize("rates", [{}, {"head": []}, {"head": [0.01]}, {"default": [0.0, 0.0]}])
def test_rates_of_short_runs_are_drawn(rates, tmp_path):
    assert is_drawn(draw_rates(rates, tmp_path / "rates.png", steps_per_epoch=0))


def test_any_name_of_a_group_can_be_drawn_without_warnings(tmp_path):
    names = ["$x_1$", "$", "a\nb", "日本", "🐶", "قطة", "\udc80", "\x07", "", "a%b", "\\frac{1}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = {name: [0.1 * i, 0.2] for i, name in enumerate(names)}
        assert is_drawn(draw_rates(rates, tmp_path / "rates.png", steps_per_epoch=1))


def test_a_plot_is_written_at_once_and_replaces_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    assert draw_curves(records(2), str(path), scores=SCORES) == path
    old = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        draw_curves(records(3), path, scores=SCORES)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    assert path.read_bytes() == old


def test_the_users_own_settings_neither_matter_nor_change(tmp_path):
    draw_curves(records(2), tmp_path / "plain.png", scores=SCORES)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": True}):
        draw_curves(records(2), tmp_path / "dark.png", scores=SCORES)
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "dark.png").read_bytes()


@pytest.mark.parametrize("scored", [True, False])
def test_a_run_leaves_its_curves_and_rates(tmp_path, scored):
    follow(Plots, tmp_path / "run", make_records(scored=scored))
    plots = tmp_path / "run" / "pictures"
    assert {path.name for path in plots.iterdir()} == {"curves.png", "rates.png"}
    assert all(is_drawn(path) for path in plots.iterdir())
    assert read_record(tmp_path / "run")["pictures"] is True


def test_a_plot_that_cannot_be_drawn_is_reported_and_the_others_are_drawn(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ValueError("no font")

    monkeypatch.setattr(plots, "draw_curves", fail)
    said = follow(Plots, tmp_path / "run", make_records())
    assert "note: the plot curves.png could not be drawn: no font" in said
    assert [path.name for path in (tmp_path / "run" / "pictures").iterdir()] == ["rates.png"]
    assert "pictures" not in read_record(tmp_path / "run")


def test_a_run_that_is_asked_to_stop_is_not_drawn(tmp_path):
    follow(Plots, tmp_path / "run", make_records(), is_stopping=lambda: True)
    assert not (tmp_path / "run" / "pictures").exists()
    assert read_record(tmp_path / "run") == {}
