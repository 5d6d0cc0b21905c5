"""The plots that chapters share: what is drawn is what was given, and every figure has its text alternative."""

import base64
import html
import re

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection

from utils import plots

ALT = "A figure for a test."


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a plot would have shown, in order."""
    figures = []

    def keep(figure, alt):
        assert alt == ALT
        figures.append(figure)

    monkeypatch.setattr(plots, "show", keep)
    yield figures
    for figure in figures:
        plots.plt.close(figure)


def pictures(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_a_figure_is_shown_with_its_alternative_and_closed(monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    figure = plots.plt.figure()
    plots.show(figure, 'A "figure" with <bos> & more.')
    (shown,) = displayed
    found = re.fullmatch(r'<img alt="([^"<>]*)" src="data:image/png;base64,([^"]*)">', shown.data)
    assert html.unescape(found[1]) == 'A "figure" with <bos> & more.'
    assert base64.b64decode(found[2]).startswith(b"\x89PNG")
    assert not plots.plt.fignum_exists(figure.number)


@pytest.mark.parametrize("diverging", [False, True])
def test_heatmap(drawn, diverging):
    values = torch.tensor([[1.0, -3.0, float("-inf")], [2.0, 0.5, 0.0]], requires_grad=True)
    plots.heatmap(values, title="t", alt=ALT, xticks=["a", "b", "a long one"], diverging=diverging, annotate=True)
    (image,) = pictures(drawn[0])[:1]
    np.testing.assert_array_equal(image.get_array(), values.detach())
    if diverging:
        assert (image.norm.vmin, image.norm.vmax) == (-3, 3)
    assert {text.get_text() for text in drawn[0].axes[0].texts} >= {"1", "-3", "0.5"}


def test_lines_have_bands_levels_and_the_given_places(drawn):
    bands = {"one": ([0.5, 1.5], [1.5, 2.5])}
    plots.lines(
        {"one": [1.0, 2.0], "two": torch.tensor([3.0, 4.0])},
        x=[10, 20],
        bands=bands,
        horizontal={"chance": 0.25},
        log_x=True,
        **{"title": "t", "xlabel": "x", "ylabel": "y", "alt": ALT},
    )
    axes = drawn[0].axes[0]
    one, two, level = axes.lines
    assert (list(one.get_xdata()), list(two.get_ydata()), set(level.get_ydata())) == ([10, 20], [3, 4], {0.25})
    assert axes.get_xscale() == "log" and [t.get_text() for t in axes.get_legend().get_texts()] == [
        "one",
        "two",
        "chance",
    ]
    (band,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.5, 2.5)


def test_lines_over_names(drawn):
    plots.lines({"one": [3.0, 1.0]}, x=["early", "late"], title="t", xlabel="x", ylabel="y", alt=ALT)
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["early", "late"]
    assert axes.lines[0].get_xydata().tolist() == [[0, 3], [1, 1]]


def test_bars_with_intervals(drawn):
    plots.bars({"a": 1.0, "b": -2.0}, intervals={"b": (-2.5, -1.0)}, title="t", ylabel="y", alt=ALT)
    axes = drawn[0].axes[0]
    assert [patch.get_height() for patch in axes.patches] == [1, -2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    (interval,) = axes.collections
    assert interval.get_segments()[0][:, 1].tolist() == [-2.5, -1.0]


def test_grouped_bars_put_the_first_label_on_top_and_intervals_at_their_bars(drawn):
    series = {"first": torch.tensor([1.0, 2.0, 3.0]), "second": [-1.0, 0.0, 1.0]}
    intervals = {"second": ([-2.0, -0.5, 0.5], [-0.5, 0.5, 2.0])}
    plots.grouped_bars(series, ["p", "q", "r"], intervals=intervals, title="t", xlabel="x", alt=ALT)
    axes = drawn[0].axes[0]
    assert [patch.get_width() for patch in axes.patches] == [1, 2, 3, -1, 0, 1]
    assert axes.yaxis_inverted()
    (found,) = axes.collections
    middles = [patch.get_y() + patch.get_height() / 2 for patch in axes.patches[3:]]
    for segment, middle, low, high in zip(found.get_segments(), middles, *intervals["second"], strict=True):
        np.testing.assert_allclose(segment, [[low, middle], [high, middle]])


@pytest.mark.parametrize(
    "scale, ranges",
    [
        ("each", [(0, 1), (0, 5), (0, 10), (0, 2)]),
        ("row", [(0, 5), (0, 5), (0, 10), (0, 10)]),
        ("column", [(0, 10), (0, 5), (0, 10), (0, 5)]),
        ("all", [(0, 10)] * 4),
    ],
)
def test_images_share_their_colours_as_asked(drawn, scale, ranges):
    grid = [[np.eye(2) * top for top in row] for row in ((1, 5), (10, 2))]
    plots.images(grid, scale=scale, alt=ALT)
    assert [(image.norm.vmin, image.norm.vmax) for image in pictures(drawn[0])] == ranges


def test_images_with_gaps_signs_and_colour(drawn):
    signed = torch.tensor([[-4.0, 1.0]])
    coloured = torch.full((3, 2, 5), 1.5)
    grid = [[signed, None], [torch.zeros(2, 2), coloured]]
    labels = {"column_labels": ["signed", "other"], "row_labels": ["top", "bottom"], "titles": [["here", ""], ["", ""]]}
    plots.images(grid, diverging=[True, False], alt=ALT, **labels)
    first, blank, rgb = pictures(drawn[0])
    assert (first.norm.vmin, first.norm.vmax) == (-4, 4)
    assert blank.norm.vmin < blank.norm.vmax  # a picture of nothing but zeros still has a scale
    assert rgb.get_array().shape == (2, 5, 3) and rgb.get_array().max() == 1
    assert drawn[0].axes[0].get_title() == "signed\nhere" and drawn[0].axes[2].get_ylabel() == "bottom"
