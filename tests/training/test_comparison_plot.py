from figure_checks import build, is_drawn, texts
from zoo.training import comparison_plot
from zoo.training.comparison_plot import draw_comparison

LONG = [{"epoch": epoch, "loss": 1.0, "val_loss": 2.0, "top1": epoch / 10} for epoch in (1, 2, 3)]
SHORT = [{"epoch": 1, "loss": 0.5}]


def test_every_run_has_its_colour_and_its_name():
    figure = build(comparison_plot._draw, {"long": LONG, "_short": SHORT, "none": []}, "top1", "top-1")
    loss, scores = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.0] * 3, [2.0] * 3, [0.5]]
    assert list(scores.lines[0].get_ydata()) == [0.1, 0.2, 0.3]
    assert loss.lines[1].get_color() == scores.lines[0].get_color() != loss.lines[2].get_color()
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["long", "_short", "none"]
    assert scores.get_title(loc="left") == "top-1"


def test_runs_without_epochs_say_so_and_what_is_no_number_is_left_out(tmp_path):
    assert "no epochs" in texts(build(comparison_plot._draw, {"none": []}, "top1", "top-1"))
    records = [*LONG, {"epoch": 4, "loss": "high", "top1": None}]
    path = draw_comparison({"a": records, "b": SHORT}, tmp_path / "c.png", score=("top1", "top-1"))
    assert is_drawn(path)
