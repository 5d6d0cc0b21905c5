"""The plots that chapters share: what is drawn is what was given, and every figure has its text alternative."""

import base64
import html
import re

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex

from utils import plots
from utils.attribution.interactive import occlusion_explorer, occlusion_text

ALT = "A figure for a test."
# Tokens that matplotlib would read as formulas, drop from a legend, or refuse to draw.
ODD = ["$$", "$x$", r"$\frac$", r"\$", "_", "$"]


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
    texts = {text.get_text(): text.get_color() for text in drawn[0].axes[0].texts}
    assert texts.keys() >= {"1", "-3", "0.5"}
    assert texts["-inf"] == "black"  # its cell is blank


def test_a_diverging_heatmap_of_nothing_but_zeros_has_the_colour_of_zero(drawn):
    plots.heatmap(torch.zeros(2, 2), title="t", alt=ALT, diverging=True)
    (image,) = pictures(drawn[0])[:1]
    assert image.norm(0.0) == 0.5


def separators(axes):
    """Where lines run through the whole width of a plot."""
    return [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]


def test_lines_separate_the_kinds_of_rows(drawn):
    plots.heatmap(torch.rand(6, 3), title="t", alt=ALT, groups=[1, 3, 2])
    plots.grouped_bars({"a": torch.rand(6)}, list("pqrstu"), title="t", xlabel="x", alt=ALT, groups=[1, 3, 2])
    assert [sorted(set(separators(figure.axes[0]))) for figure in drawn] == [[0.5, 3.5]] * 2
    with pytest.raises(ValueError, match=r"\[1, 3\] rows are 4 rows; there are 6"):
        plots.heatmap(torch.rand(6, 3), title="t", alt=ALT, groups=[1, 3])


BFLOAT16 = torch.tensor([1.0, -3.0, 0.5], dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "values",
    [
        BFLOAT16,
        BFLOAT16.half().requires_grad_(),
        list(BFLOAT16),
        [torch.tensor(1.0, requires_grad=True), -3, 0.5],
    ],
    ids=["bfloat16", "half with a gradient", "a list of tensors", "tensors and numbers"],
)
def test_numbers_of_every_kind_are_drawn(drawn, values):
    texts = {"title": "t", "alt": ALT}
    low, high = [0.5, -4, 0.25], [torch.tensor(2.0), -2, 1]
    plots.lines({"a": values}, bands={"a": (low, high)}, unit="seed", xlabel="x", ylabel="y", **texts)
    plots.lines({"a": [1.0, 2.0, 3.0]}, x=values, xlabel="x", ylabel="y", **texts)
    plots.grouped_bars({"a": values}, list("pqr"), intervals={"a": (low, high)}, unit="seed", xlabel="x", **texts)
    plots.bars(dict(zip("pqr", values, strict=True)), ylabel="y", horizontal={"l": values[0]}, **texts)
    if not isinstance(values, list):
        plots.heatmap(values.reshape(1, 3), **texts)
        plots.images([[values.reshape(1, 3)]], alt=ALT)
        assert [pictures(figure)[0].get_array().tolist() for figure in drawn[4:]] == [[[1, -3, 0.5]]] * 2
    curve, places, lengths, heights = (figure.axes[0] for figure in drawn[:4])
    assert curve.lines[0].get_ydata().tolist() == places.lines[0].get_xdata().tolist() == [1, -3, 0.5]
    assert [bar.get_width() for bar in lengths.patches] == [bar.get_height() for bar in heights.patches] == [1, -3, 0.5]


def as_drawn(texts):
    """What stands in the figure, where nothing is a formula."""
    shown = [text._preprocess_math(text.get_text()) for text in texts]
    assert [text for text, formula in shown if formula] == []
    return [text for text, _ in shown]


def legend(axes):
    """What the legend says, which stands between curves or below bars."""
    (found,) = [axes.get_legend()] if axes.get_legend() else axes.figure.legends
    return as_drawn(found.get_texts())


def test_text_is_drawn_as_it_stands(drawn):
    n = len(ODD)
    named = dict.fromkeys(ODD, [1.0] * n)
    texts = {"title": "a $t$ of $$", "alt": ALT}
    interval = {"$$": ([0.0] * n, [2.0] * n)}
    plots.heatmap(np.eye(n), xticks=ODD, yticks=ODD, xlabel="$x$", ylabel="$y$", colour_label="$c$", **texts)
    plots.lines(named, x=ODD, horizontal={"$l$": 0}, spread={"$s$": interval}, xlabel="$x$", ylabel="$y$", **texts)
    plots.bars(dict.fromkeys(ODD, 1.0), ylabel="$y$", horizontal={"$l$": 0.5}, **texts)
    plots.grouped_bars(named, ODD, xlabel="$x$", intervals=interval, unit="$u$", **texts)
    grid = [[np.eye(2)] * n] * n
    plots.images(grid, column_labels=ODD, row_labels=ODD, titles=[ODD] * n, title=texts["title"], alt=ALT)
    for figure in drawn:
        figure.canvas.draw()
    heat, curves, heights, lengths = (figure.axes[0] for figure in drawn[:4])
    for ticks in (heat.get_xticklabels(), heat.get_yticklabels(), curves.get_xticklabels(), heights.get_xticklabels()):
        assert as_drawn(ticks) == ODD
    assert as_drawn(lengths.get_yticklabels()) == ODD
    assert as_drawn([heat.title, heat.xaxis.label, heat.yaxis.label]) == ["a $t$ of $$", "$x$", "$y$"]
    assert as_drawn([drawn[0].axes[1].yaxis.label]) == ["$c$"]
    assert legend(curves) == [*ODD, "$l$", "$s$"]
    assert legend(heights) == ["$l$"]
    assert legend(lengths) == [*ODD, "95 % interval over $u$s"]
    first_row, labels = drawn[4].axes[:n], [axes.yaxis.label for axes in drawn[4].axes[: n * n : n]]
    assert as_drawn([axes.title for axes in first_row]) == [f"{text}\n{text}" for text in ODD]
    assert as_drawn(labels) == ODD and as_drawn([drawn[4]._suptitle]) == ["a $t$ of $$"]


def test_lines_have_bands_levels_and_the_given_places(drawn):
    bands = {"one": ([0.5, 1.5], [1.5, 2.5])}
    plots.lines(
        {"one": [1.0, 2.0], "two": torch.tensor([3.0, 4.0])},
        x=[10, 20],
        bands=bands,
        unit="landmarks",
        horizontal={"chance": 0.25},
        log_x=True,
        **{"title": "t", "xlabel": "x", "ylabel": "y", "alt": ALT},
    )
    axes = drawn[0].axes[0]
    one, two, level = axes.lines
    assert (list(one.get_xdata()), list(two.get_ydata()), set(level.get_ydata())) == ([10, 20], [3, 4], {0.25})
    assert axes.get_xscale() == "log" and legend(axes) == ["one", "two", "chance", "95 % interval over landmarks"]
    (band,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.5, 2.5)


def expect_below(figure):
    """The legend stands within the figure and below all that the axes show."""
    figure.canvas.draw()
    (axes,), (below,) = figure.axes, figure.legends
    box = below.get_window_extent()
    assert box.y1 <= axes.get_tightbbox().y0 and box.y0 >= 0
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert not axes.get_legend()


@pytest.mark.parametrize("name", ["curve {}", "a curve of which there is much to be said, number {}"])
def test_a_long_legend_stands_below_the_axes_and_a_short_one_between_the_curves(drawn, name):
    for n in (4, 5, 7):
        curves = {name.format(i): [100.0] + [float(i)] * 29 for i in range(n)}  # room at the top
        plots.lines(curves, title="t", xlabel="x", ylabel="y", alt=ALT)
    short, *long = drawn
    assert len(legend(short.axes[0])) == 4 and short.axes[0].get_legend() and not short.legends
    for figure, n in zip(long, (5, 7), strict=True):
        expect_below(figure)
        assert len(legend(figure.axes[0])) == n
        assert figure.axes[0].bbox.height > 0.9 * short.axes[0].bbox.height  # the figure grows for it


def test_a_short_legend_stands_below_where_it_would_lie_on_a_curve(drawn):
    zigzag, texts = [0.0, 1.0] * 30, {"title": "t", "xlabel": "x", "ylabel": "y", "alt": ALT}
    plots.lines({"everywhere": zigzag, "level": [0.5] * 60}, **texts)
    plots.lines({"on the left": zigzag}, x=torch.linspace(0, 1, 60), vertical={"the end": 4.0}, **texts)
    everywhere, left = drawn
    expect_below(everywhere)
    assert legend(everywhere.axes[0]) == ["everywhere", "level"]
    assert left.axes[0].get_legend() and not left.legends


def test_lines_over_names(drawn):
    plots.lines({"one": [3.0, 1.0]}, x=["early", "late"], title="t", xlabel="x", ylabel="y", alt=ALT)
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["early", "late"]
    assert axes.lines[0].get_xydata().tolist() == [[0, 3], [1, 1]]


def test_a_zero_on_a_logarithmic_axis_is_seen(drawn):
    texts = {"title": "t", "xlabel": "x", "ylabel": "y", "alt": ALT}
    plots.lines({"rank": [140.0, 2.5, 0.0]}, log_y=True, **texts)
    plots.lines({"loss": [140.0, 2.5, 0.1]}, log_y=True, **texts)
    with_zero, without = (figure.axes[0] for figure in drawn)
    assert without.get_yscale() == "log"
    heights = [float(with_zero.transData.transform((0, y))[1]) for y in (0.0, 2.5, 140.0)]
    assert np.isfinite(heights).all() and heights == sorted(heights)
    assert with_zero.get_ylim()[0] <= 0


ONE_CURVE = {"series": {"a": [1.0, 2.0]}, "xlabel": "x", "ylabel": "y"}
ONE_BAR = {"values": {"a": 1.0}, "ylabel": "y"}
ONE_GROUP = {"series": {"a": [1.0, 2.0]}, "labels": ["p", "q"], "xlabel": "x"}
TWO = ([0.5, 1.0], [1.5, 2.5])
EVERY_RANGE = [
    (plots.lines, ONE_CURVE, "bands", TWO),
    (plots.bars, ONE_BAR, "intervals", (0.5, 1.5)),
    (plots.grouped_bars, ONE_GROUP, "intervals", TWO),
]


@pytest.mark.parametrize("plot, given, argument, interval", EVERY_RANGE)
def test_an_interval_names_its_unit_and_another_range_what_it_is(drawn, plot, given, argument, interval):
    texts = {"title": "t", "alt": ALT}
    with pytest.raises(ValueError, match='unit="landmarks"'):
        plot(**given, **{argument: {"a": interval}}, **texts)
    plots.plt.close()
    plot(**given, **{argument: {"a": interval}}, unit="study", **texts)
    plot(**given, spread={"lowest to highest of 5 seeds": {"a": interval}}, **texts)
    whiskers, spread = (figure.axes[0] for figure in drawn)
    assert legend(whiskers)[-1] == "95 % interval over studies"
    assert legend(spread)[-1] == "lowest to highest of 5 seeds"
    assert not any(isinstance(c, PolyCollection) for c in spread.collections)  # no shading
    assert {line.get_marker() for line in spread.lines} <= {"None", "o"}  # no caps


@pytest.mark.parametrize("plot, given, argument, interval", EVERY_RANGE)
def test_a_range_of_nothing_drawn_or_upside_down_is_refused(drawn, plot, given, argument, interval):
    low, high = interval
    for ranges, complaint in (({"b": interval}, "'b'"), ({"a": (high, low)}, "low end above its high end")):
        for how in ({argument: ranges, "unit": "seeds"}, {"spread": {"range": ranges}}):
            with pytest.raises(ValueError, match=complaint):
                plot(**given, **how, title="t", alt=ALT)
            plots.plt.close()


def test_spreads_lie_where_they_were_given(drawn):
    plots.lines(**ONE_CURVE, spread={"range": {"a": TWO}}, title="t", alt=ALT)
    plots.bars(**ONE_BAR, spread={"range": {"a": (0.5, 1.5)}}, title="t", alt=ALT)
    plots.grouped_bars(**ONE_GROUP, spread={"range": {"a": TWO}}, title="t", alt=ALT)
    curve, bar, group = (figure.axes[0] for figure in drawn)
    assert [line.get_ydata().tolist() for line in curve.lines[1:]] == [[0.5, 1.0], [1.5, 2.5]]
    (thin,) = (c for c in bar.collections if isinstance(c, LineCollection))
    assert thin.get_segments()[0].tolist() == [[0, 0.5], [0, 1.5]]
    (thin,) = (c for c in group.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(thin.get_segments(), [[[0.5, 0], [1.5, 0]], [[1.0, 1], [2.5, 1]]], atol=1e-12)


def test_bars_with_intervals(drawn):
    plots.bars({"a": 1.0, "b": -2.0}, intervals={"b": (-2.5, -1.0)}, unit="seeds", title="t", ylabel="y", alt=ALT)
    axes = drawn[0].axes[0]
    assert [patch.get_height() for patch in axes.patches] == [1, -2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    (interval,) = axes.collections
    assert interval.get_segments()[0][:, 1].tolist() == [-2.5, -1.0]


def test_an_interval_that_leaves_its_value_out_is_drawn_where_it_is(drawn):
    plots.bars({"a": 1.0}, intervals={"a": (2.0, 3.0)}, unit="seeds", title="t", ylabel="y", alt=ALT)
    (interval,) = drawn[0].axes[0].collections
    assert interval.get_segments()[0][:, 1].tolist() == [2, 3]


def seen_at(figure, x, y):
    """The colours of the pixels within three of a place."""
    figure.canvas.draw()
    column, height = figure.axes[0].transData.transform((x, y)).round().astype(int)
    picture = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3]
    around = picture[height - 3 : height + 4, column - 3 : column + 4].reshape(-1, 3)
    return {to_hex(pixel / 255).upper() for pixel in around}


@pytest.mark.parametrize("number, seen", [(0.0, True), (float("nan"), False)])
def test_a_bar_of_zero_is_seen_and_a_missing_one_is_not(drawn, number, seen):
    plots.bars({"a": 4.0, "b": number, "c": -1.0}, title="t", ylabel="y", alt=ALT)
    plots.grouped_bars({"a": [4.0, number, -1.0]}, list("pqr"), title="t", xlabel="x", alt=ALT)
    upright, lying = drawn
    assert (plots.COLOURS[0] in seen_at(upright, 1, 0)) == seen
    assert (plots.COLOURS[0] in seen_at(lying, 0, 1)) == seen


def test_grouped_bars_put_the_first_label_on_top_and_intervals_at_their_bars(drawn):
    series = {"first": torch.tensor([1.0, 2.0, 3.0]), "second": [-1.0, 0.0, 1.0]}
    intervals = {"second": ([-2.0, -0.5, 0.5], [-0.5, 0.5, 2.0])}
    plots.grouped_bars(series, ["p", "q", "r"], intervals=intervals, unit="seeds", title="t", xlabel="x", alt=ALT)
    axes = drawn[0].axes[0]
    assert [patch.get_width() for patch in axes.patches] == [1, 2, 3, -1, 0, 1]
    assert axes.yaxis_inverted() and legend(axes) == ["first", "second", "95 % interval over seeds"]
    (found,) = axes.collections
    middles = [patch.get_y() + patch.get_height() / 2 for patch in axes.patches[3:]]
    for segment, middle, low, high in zip(found.get_segments(), middles, *intervals["second"], strict=True):
        np.testing.assert_allclose(segment, [[low, middle], [high, middle]])


def keys(figure):
    """The labels of each colour key, from the top."""
    strips = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    return [[label.get_text() for label in axes.get_xticklabels()] for axes in strips]


@pytest.mark.parametrize(
    "scale, ranges",
    [
        ("each", [(0, 1), (0, 5), (0, 10), (0, 2)]),
        ("row", [(0, 5), (0, 5), (0, 10), (0, 10)]),
        ("column", [(0, 10), (0, 5), (0, 10), (0, 5)]),
        ("all", [(0, 10)] * 4),
    ],
)
def test_images_share_their_colours_as_asked_and_say_what_the_colours_span(drawn, scale, ranges):
    grid = [[np.eye(2) * top for top in row] for row in ((1, 5), (10, 2))]
    plots.images(grid, scale=scale, alt=ALT)
    assert [(image.norm.vmin, image.norm.vmax) for image in pictures(drawn[0])] == ranges
    below = [axes.get_xlabel() for axes in drawn[0].axes[:4]]
    if scale == "all":
        assert below == [""] * 4 and keys(drawn[0]) == [["0", "10"]]
    else:
        assert below == [f"0 to {high}" for _, high in ranges] and keys(drawn[0]) == [["least", "greatest"]]


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
    assert drawn[0].axes[0].get_xlabel() == "±4" and drawn[0].axes[3].get_xlabel() == ""
    assert keys(drawn[0]) == [["negative", "0", "positive"]]  # colours of a photograph need none


def test_what_is_not_finite_leaves_a_picture_its_scale(drawn):
    plots.images([[np.array([[1.0, np.nan, -np.inf]]), np.full((2, 2), np.nan)]], alt=ALT)
    assert [(image.norm.vmin, image.norm.vmax) for image in pictures(drawn[0])] == [(0, 1), (0, 1)]


class Sum(torch.nn.Module):
    """Two classes: the sum of the pixels, and three."""

    def forward(self, images):
        total = images.sum((1, 2, 3))
        return torch.stack([total, torch.full_like(total, 3.0)], dim=1)


def test_every_control_of_the_explorer_is_tied_to_its_label_and_the_picture_has_words():
    box = occlusion_explorer(Sum(), torch.ones(1, 4, 4))
    controls = [control for row in box.children[:2] for control in row.children]
    # Number fields: the views of ipywidgets' sliders leave their label's "for" empty.
    assert {control._view_name for control in controls} == {"IntTextView", "FloatTextView"}
    assert [control.description for control in controls] == ["row", "column", "size", "grey level"]
    picture, size = box.children[2], controls[2]
    seen = []
    for value in (0, 4):
        size.value = value
        found = re.fullmatch(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', picture.value)
        seen.append(html.unescape(found[1]))
        assert base64.b64decode(found[2]).startswith(b"\x89PNG")
    assert "square of 0 by 0" in seen[0] and "read as 0, the whole image as 0" in seen[0]
    # From row 2 and column 2 on, four of sixteen pixels are covered.
    assert seen[1] == occlusion_text(Sum(), torch.ones(1, 4, 4), row=2, column=2, patch=4)
    assert "0 16.0 and 12.0, 1 3.0 and 3.0" in seen[1]
