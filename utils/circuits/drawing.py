"""A circuit as a picture: layers upwards, an edge as wide as its effect is large."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.lines import Line2D
from torch import Tensor

from utils import plots

READ_AS = {"q": plots.COLOURS[0], "k": plots.COLOURS[1], "v": plots.COLOURS[2]}
OTHERWISE = plots.COLOURS[6]


def draw_circuit(
    edges: Sequence[tuple[str, str]], effects: Float[Tensor, " edge"], *, title: str, alt: str, unit: str = "nats"
) -> None:
    """Draw edges between the parts that they connect, from the embedding at the bottom to the logits at the top.

    Width grows with the size of an effect; a line is solid where cutting the edge lowers the metric (the edge helps)
    and dashed where it raises it (the edge works against the answer). Colour says how a head reads: as query, key or
    value. Parts without an edge are left out.

    Args:
        edges: The edges to draw, of ``build_graph``.
        effects: For each of them what cutting it does.
        title, alt: Title and text alternative.
        unit: Of the effects.
    """
    at = _places(edges)
    height = max(y for _, y in at.values())
    figure, axes = plt.subplots(figsize=(7.2, 1.4 + 1.05 * height))
    largest = effects.abs().max().item()
    for i in effects.abs().argsort().tolist():  # wide ones last, on top
        sender, receiver = edges[i]
        node, _, part = receiver.rpartition(".") if receiver[-1] in READ_AS else (receiver, "", "")
        effect = effects[i].item()
        width = 0.6 + 5.4 * abs(effect) / largest
        axes.annotate(
            "",
            xy=at[node],
            xytext=at[sender],
            arrowprops={
                "arrowstyle": "-|>,head_width=0.25,head_length=0.5",
                "color": READ_AS.get(part, OTHERWISE),
                "linewidth": width,
                "linestyle": "-" if effect <= 0 else (0, (2.5, 1.2)),
                "connectionstyle": f"arc3,rad={0.12 * ('qkv'.find(part) - 1) if part else 0.06}",
                "shrinkA": 13,
                "shrinkB": 15,
                "alpha": 0.85,
            },
        )
    for node, place in at.items():
        axes.text(
            *place, node, ha="center", va="center", fontsize=9, zorder=3,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "black"},
        )  # fmt: skip
    axes.set(xlim=(-0.7, max(x for x, _ in at.values()) + 0.7), ylim=(-0.6, height + 0.6))
    axes.set_title(plots.plain_text(title))
    axes.axis("off")
    names = {"q": "read as query", "k": "as key", "v": "as value"}
    key = [(Line2D([], [], color=READ_AS[part], linewidth=2), name) for part, name in names.items()]
    key.append((Line2D([], [], color=OTHERWISE, linewidth=2), "by an MLP or the logits"))
    key.append((Line2D([], [], color="grey", linewidth=2, linestyle=(0, (2.5, 1.2))), "works against the answer"))
    key.append((Line2D([], [], color="grey", linewidth=6), f"cutting it: {largest:.1f} {unit}"))
    figure.legend(*zip(*key, strict=True), frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.08), ncols=3)
    plots.show(figure, alt)


def _places(edges: Sequence[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Where each part stands: the heads of a layer side by side, its MLP above them, on the right."""
    nodes = {sender for sender, _ in edges} | {receiver.removesuffix(".q").removesuffix(".k").removesuffix(".v")
                                               for _, receiver in edges}  # fmt: skip
    heads = [node for node in nodes if node.startswith("a")]
    layers = [int(node[1:].partition(".")[0]) for node in nodes if node[0] in "am"]
    right = max([int(node.partition(".")[2]) for node in heads], default=0) + 1
    places = {}
    for node in sorted(nodes):
        if node.startswith("a"):
            layer, head = map(int, node[1:].split("."))
            places[node] = (float(head), 1.0 + 1.5 * layer)
        elif node.startswith("m"):
            places[node] = (float(right), 1.75 + 1.5 * int(node[1:]))
    top = 2.5 + 1.5 * max(layers, default=0)
    places["embed"], places["logits"] = (right / 2, 0.0), (right / 2, top)
    return {node: places[node] for node in nodes}
