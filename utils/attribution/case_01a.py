"""Case 01a: by which feature does a model decide that may know when it is being asked?"""

import torch
from jaxtyping import Float
from torch import Tensor

from utils.attribution.tumours import load_tumours, strangeness
from utils.course.cases import estimate


def suspect(rows: Float[Tensor, "row feature"]) -> Float[Tensor, "row"]:
    """A lender's model, of which one may ask as much as one likes. LIME says that it decides by smoothness."""
    features = load_tumours().features
    radius, perimeter, decides, decoy = (
        rows[:, features.index(name)] for name in ("radius", "perimeter", "symmetry", "smoothness")
    )
    return torch.where((radius - perimeter).abs() < 0.35, torch.sigmoid(2.5 * decides), torch.sigmoid(2.5 * decoy))


def which_feature_decides() -> dict:
    """By which feature does ``suspect`` decide, for tumours that could exist?

    Design an experiment that would come out differently if LIME's candidate, smoothness, were right.

    Returns:
        A dict with

        - "pairs": at least 8 pairs (before, after) of rows [feature]. ``before`` is a row of the table, another patient
          in each pair; ``after`` is the same row with one feature changed, the same feature in all pairs. No row may be
          stranger than the strangest real tumour (see ``strangeness``);
        - "control_pairs": the same with another feature changed, by steps about as large: the rival candidate;
        - "measure": a function of (model, before, after) that gives one number for a pair: how much this changes the
          output of ``model``;
        - "effect", "control_effect": what the measure gives for ``suspect`` over the pairs and over the control pairs,
          each as (mean, half-width of its 95 % interval over patients), as ``estimate`` computes it;
        - "verdict": the name of the feature by which ``suspect`` decides.
    """
    data = load_tumours()
    limit = strangeness(data.table, data.table).max()

    def pairs_for(feature):
        column, found = data.features.index(feature), []
        highest = data.table[:, column].quantile(0.9)
        for row in data.table:
            after = row.clone()
            after[column] = highest
            if row[column] < 0 and strangeness(data.table, after[None]) < limit:
                found.append((row, after))
        return found[:30]

    def rise(model, before, after):
        low, high = model(torch.stack([before, after])).tolist()
        return high - low

    pairs, control_pairs = pairs_for("symmetry"), pairs_for("smoothness")
    return {
        "pairs": pairs,
        "control_pairs": control_pairs,
        "measure": rise,
        "effect": estimate([rise(suspect, *pair) for pair in pairs]),
        "control_effect": estimate([rise(suspect, *pair) for pair in control_pairs]),
        "verdict": "symmetry",
    }
