import math
import re

from zoo.pages import draw_lines, draw_matrix


def places(svg):
    """The points of the first line, in units of the drawing."""
    path = re.search(r'<path d="M([^"]+)"', svg)[1]
    return [tuple(map(float, point.split())) for point in path.split("L")]


def test_values_are_where_the_axis_says():
    svg = draw_lines({"loss": {1: 2.0, 2: 1.0, 3: math.nan, 5: 0.0}}, across="epoch", show="{:g}".format, limits=(0, 2))
    (x1, top), (x2, middle), (x5, bottom) = places(svg)
    assert middle == (top + bottom) / 2
    assert x2 - x1 == (x5 - x1) / 4
    assert re.findall(r'text-anchor="end" *>([\d.]+)<', svg) == ["0", "0.5", "1", "1.5", "2"]
    assert "<title>epoch 2\nloss: 1</title>" in svg
    assert "epoch 3" not in svg


def test_lines_far_apart_get_a_logarithmic_axis_and_zeros_leave_it():
    lines = {"head": {1: 0.0, 2: 0.01, 3: 0.001}, "backbone": {1: 1e-5, 3: 1e-5}}
    svg = draw_lines(lines, across="step", show="{:g}".format, logarithmic=True)
    (_, high), (_, low) = places(svg)
    marks = re.findall(r'y="([\d.]+)" dy=".35em" text-anchor="end" *>(1e-05|0.\d+)<', svg)
    at = {float(text): float(y) for y, text in marks}
    assert (high, low) == (at[0.01], at[0.001])


def test_many_points_are_thinned_and_keep_their_ends():
    svg = draw_lines({"lr": {step: step for step in range(50_001)}}, across="step", show="{:g}".format)
    assert len(svg) < 60_000
    assert "step 50,000" in svg


def test_nothing_to_draw_is_told():
    assert "nothing to draw" in draw_lines({"loss": {1: math.nan}}, across="epoch", show=str)
    assert "0 of 0 (0.0%)" in draw_matrix([[0]], ["a"])
