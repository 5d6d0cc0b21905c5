from functools import cache

import torch

from utils.attribution.case_01a import suspect, which_feature_decides
from utils.attribution.lime import lime_neighbourhood
from utils.attribution.tumours import load_tumours, strangeness
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong

DATA = load_tumours()


@cache
def ours():
    return which_feature_decides()


def rise(model, before, after):
    low, high = model(torch.stack([before, after])).tolist()
    return high - low


def with_value(feature, value, rows):
    column, found = DATA.features.index(feature), []
    for row in rows:
        after = row.clone()
        after[column] = value
        found.append((row, after))
    return found


def designed(pairs, control_pairs, verdict, measure=rise, **changes):
    return {
        "pairs": pairs,
        "control_pairs": control_pairs,
        "measure": measure,
        "effect": estimate([measure(suspect, *pair) for pair in pairs]),
        "control_effect": estimate([measure(suspect, *pair) for pair in control_pairs]),
        "verdict": verdict,
    } | changes


@wrong(
    "which_feature_decides",
    "Your rows are LIME's neighbours: radius and perimeter contradict each other in most of them. That is just where "
    "this model gives the auditor another answer. Begin with patients of the table, and keep them possible.",
)
def among_limes_neighbours():
    generator = torch.Generator().manual_seed(0)
    rows = lime_neighbourhood(DATA.table[0], torch.ones(10, dtype=torch.float64), 30, generator=generator)[1:]
    return designed(with_value("smoothness", 1.0, rows), with_value("symmetry", 1.0, rows), "smoothness")


@wrong(
    "which_feature_decides",
    "Your pairs change symmetry and smoothness together, so they cannot tell the two candidates apart. Change one, and "
    "leave the other as it is.",
)
def both_at_once():
    smoothness = torch.arange(10) == DATA.features.index("smoothness")
    pairs = [(row, torch.where(smoothness, 0.5, after)) for row, after in ours()["pairs"]]
    return designed(pairs, ours()["control_pairs"], "symmetry")


@wrong(
    "which_feature_decides",
    "All your pairs begin with the same patient, changed by more and less. One patient is one unit, however often it "
    "is asked about: the interval then says nothing about others.",
)
def one_patient():
    row = ours()["pairs"][0][0]
    pairs = [with_value("symmetry", float(value), [row])[0] for value in torch.linspace(0.1, 1.2, 12)]
    controls = [with_value("smoothness", float(value), [row])[0] for value in torch.linspace(0.1, 1.2, 12)]
    return designed(pairs, controls, "symmetry")


@wrong(
    "which_feature_decides",
    "Your control changes a feature that nobody suspects. That it does nothing says little; LIME's candidate, "
    "smoothness, is the rival that has to be changed.",
)
def idle_control():
    controls = with_value("texture", 0.5, [row for row, _ in ours()["pairs"]])
    return designed(ours()["pairs"], controls, "symmetry")


@wrong(
    "which_feature_decides",
    "Your control changes smoothness by much smaller steps than your pairs change symmetry, so two things differ, the "
    "feature and the dose. Change the rival by as much.",
)
def small_dose():
    controls = [(row, row + 0.03 * (after - row)) for row, after in ours()["control_pairs"]]
    return designed(ours()["pairs"], controls, "symmetry")


@wrong(
    "which_feature_decides",
    "Your measure does not ask the model that it is handed: it calls one by name, or looks at the rows alone. Whoever "
    "wants to repeat your audit with another model gets the old numbers.",
)
def model_by_name():
    return designed(ours()["pairs"], ours()["control_pairs"], "symmetry", lambda _, *pair: rise(suspect, *pair))


@wrong(
    "which_feature_decides",
    "Your measure is how high the output is, and patients differ in that whatever you change. Compare each patient's "
    "output after the change with her own before it.",
)
def level_for_change():
    def level(model, before, after):
        return model(after[None]).item()

    return designed(ours()["pairs"], ours()["control_pairs"], "symmetry", level)


@wrong(
    "which_feature_decides",
    "Your numbers say one thing and your verdict another: symmetry moves the output of possible patients, smoothness "
    "does not, and you name smoothness, as LIME did.",
)
def verdict_of_lime():
    return ours() | {"verdict": "smoothness"}


@wrong(
    "which_feature_decides",
    "The half-width that you hand in is the standard deviation over patients: how much they differ, and not how well "
    "their mean is known. `estimate` gives the interval.",
)
def spread_in_place_of_interval():
    values = torch.tensor([rise(suspect, *pair) for pair in ours()["pairs"]], dtype=torch.float64)
    return ours() | {"effect": (float(values.mean()), float(values.std()))}


@right("which_feature_decides")
def swapped_between_patients():
    """Each patient gets the value of another; the measure is the size of the change, in logits."""
    column, rival = (DATA.features.index(name) for name in ("symmetry", "smoothness"))
    limit = strangeness(DATA.table, DATA.table).max()

    def swapped(index):
        found = []
        for row, donor in zip(DATA.table[:120], DATA.table[120:240], strict=True):
            after = row.clone()
            after[index] = donor[index]
            if strangeness(DATA.table, after[None]) < limit and abs(donor[index] - row[index]) > 0.5:
                found.append((row, after))
        return found[:40]

    def size(model, before, after):
        return float((model(after[None]).logit() - model(before[None]).logit()).abs())

    return designed(swapped(column), swapped(rival), "symmetry", measure=size)


@right("which_feature_decides")
def rise_per_unit():
    """The measure is a slope, which is no number where nothing changes."""

    def slope(model, before, after):
        return rise(model, before, after) / float((after - before).sum())

    return designed(ours()["pairs"], ours()["control_pairs"], "symmetry", slope)


@right("which_feature_decides")
def as_lists():
    """Twelve patients as lists of numbers, and a measure that counts changes of mind."""
    pairs, controls = (
        [(before.tolist(), after.tolist()) for before, after in ours()[kind][:12]]
        for kind in ("pairs", "control_pairs")
    )

    def rise_of_lists(model, before, after):
        rows = torch.stack([torch.as_tensor(before), torch.as_tensor(after)])
        low, high = model(rows)
        return (high - low).item()

    def run(pairs):
        return [rise_of_lists(suspect, *(torch.tensor(row, dtype=torch.float64) for row in pair)) for pair in pairs]

    return {
        "pairs": pairs,
        "control_pairs": controls,
        "measure": rise_of_lists,
        "effect": list(estimate(run(pairs))),
        "control_effect": estimate(run(controls)),
        "verdict": "symmetry",
    }
