"""Case 01b: is a Shapley value moved by the class of the background, or by which patients happen to be in it?"""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from utils.attribution.shapley import shapley_exact
from utils.attribution.tumours import load_tumours, train_network
from utils.course.cases import estimate


@cache
def first_network() -> Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]]:
    """The network that this part explains: trained on the tumours with seed 0."""
    data = load_tumours()
    return train_network(data, data.malignant, seed=0)


def what_moves_the_share() -> dict:
    """Does the class of the background move a feature's share of a network's output, more than the draw does?

    The network is the one that ``first_network()`` returns. Two backgrounds differ in many ways. Compare backgrounds
    that differ in class, and, as the control, backgrounds that differ in nothing but which patients were drawn.

    Returns:
        A dict with

        - "patient": the number of the row of the table that is explained;
        - "pairs": at least 8 pairs (first, second) of backgrounds, each drawn anew: a list of 10 to 60 row numbers, all
          benign in ``first`` and all malignant in ``second``, as many in the one as in the other, without the patient;
        - "control_pairs": at least 8 such pairs of which both are of one class, share no row, and are no larger than
          those in "pairs";
        - "measure": a function of (model, patient, background), of rows and not of row numbers, that gives one number:
          a feature's share of the output of ``model`` for this patient;
        - "effect", "control_effect": the measure's change from first to second, over the pairs and over the control
          pairs, as (mean, half-width of its 95 % interval over draws), as ``estimate`` computes it;
        - "verdict": "the class" or "not shown".
    """
    data, model = load_tumours(), first_network()
    generator = torch.Generator().manual_seed(0)
    patient = int(data.held_out[0])
    rows = {label: data.train_rows[data.malignant[data.train_rows] == label] for label in (0, 1)}

    def draw(label, n=20):
        return rows[label][torch.randperm(len(rows[label]), generator=generator)[:n]].tolist()

    def share(model, patient, background):
        return shapley_exact(model, patient, background)[data.features.index("concave points")].item()

    def change(first, second):
        values = [share(model, data.table[patient], data.table[numbers]) for numbers in (first, second)]
        return values[1] - values[0]

    pairs = [(draw(0), draw(1)) for _ in range(10)]
    both = [draw(0, n=40) for _ in range(10)]
    control_pairs = [(numbers[:20], numbers[20:]) for numbers in both]
    return {
        "patient": patient,
        "pairs": pairs,
        "control_pairs": control_pairs,
        "measure": share,
        "effect": estimate([change(*pair) for pair in pairs]),
        "control_effect": estimate([change(*pair) for pair in control_pairs]),
        "verdict": "the class",
    }
