"""Wrong designs for the case of part 06b, each with its sentence, and right ones."""

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.superposition.case_06b import FAMILIES

CONTROLS = [(one, other) for one in (0, 1) for other in range(2, 8)]


def cosine(model, i, j):
    return torch.cosine_similarity(model.W[0, :, i], model.W[0, :, j], dim=0).item()


def design(families, *, measure=cosine, controls=CONTROLS, interval=estimate, subtract=True, verdict=None, models=None):
    """Ours in all parts, but for those that are given."""
    found = {"measure": measure, "controls": controls}
    for name in FAMILIES:
        effects = []
        for model in families[name][:models]:
            others = sum(measure(model, i, j) for i, j in controls) / len(controls)
            effects.append(measure(model, 0, 1) - (others if subtract else 0.0))
        mean, width = interval(effects)
        follows = "together" if mean - width > 0 else "apart" if mean + width < 0 else "undecided"
        found[f"effect_{name}"] = (mean, width)
        found[f"verdict_{name}"] = (verdict or (lambda follows, mean: follows))(follows, mean)
    return found


@wrong(
    "how_the_pair_was_given",
    "Your measure is larger for a pair that is never on together, too: it has lost the sign. Opposite directions share "
    "a line, and it is the sign that tells the two kinds apart.",
)
def without_sign(families):
    return design(families, measure=lambda model, i, j: abs(cosine(model, i, j)))


@wrong(
    "how_the_pair_was_given",
    "Your measure reads single hidden dimensions. Turn them, and the model computes the same, but your "
    "measure does not: "
    "ask for lengths, angles or outputs.",
)
def first_dimension(families):
    def measure(model, i, j):
        return (model.W[0, 0, i] * model.W[0, 0, j]).item()

    return design(families, measure=measure)


@wrong(
    "how_the_pair_was_given",
    "Your controls are pairs of other features. They differ from the pair in two things: a feature that matters less "
    "than the others lies otherwise, pair or not. Compare features 0 and 1 with others.",
)
def other_features(families):
    return design(families, controls=[(i, j) for i in range(2, 8) for j in range(i + 1, 8)])


@wrong(
    "how_the_pair_was_given",
    "The pair itself is among its controls: it can only lessen the difference that you look for.",
)
def pair_as_control(families):
    return design(families, controls=[*CONTROLS, (0, 1)])


@wrong(
    "how_the_pair_was_given",
    "You have too few controls: by chance the one or two that you take lie opposite, as many do where room is short.",
)
def few_controls(families):
    return design(families, controls=[(0, 2), (1, 3)])


@wrong(
    "how_the_pair_was_given",
    "You count some controls twice: (0, 2) and (2, 0) are the same pair, and no further evidence.",
)
def both_orders(families):
    return design(families, controls=[*CONTROLS[:4], *((j, i) for i, j in CONTROLS[:4])])


@wrong(
    "how_the_pair_was_given",
    "You report the measure of the pair, and not what it is above the controls. Features that share three dimensions "
    "overlap in any case.",
)
def nothing_subtracted(families):
    return design(families, subtract=False)


@wrong(
    "how_the_pair_was_given",
    "Your half-widths are standard deviations: they tell how much models differ, not how well the mean is known.",
)
def standard_deviations(families):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), values.std().item()

    return design(families, interval=spread)


@wrong(
    "how_the_pair_was_given",
    "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.",
)
def standard_errors(families):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (values.std() / len(values) ** 0.5).item()

    return design(families, interval=spread)


@wrong(
    "how_the_pair_was_given",
    "You decide by the sign of the mean alone, where the interval has 0 in it. Among sixteen models of independent "
    "features the mean is not exactly 0 either.",
)
def by_sign(families):
    return design(families, verdict=lambda follows, mean: "together" if mean > 0 else "apart")


@wrong(
    "how_the_pair_was_given",
    "Your verdicts are exchanged: a pair that was never on together points away from each other, as then the ReLU can "
    "cut off what one adds to the other.",
)
def exchanged(families):
    others = {"together": "apart", "apart": "together", "undecided": "undecided"}
    return design(families, verdict=lambda follows, mean: others[follows])


@wrong(
    "how_the_pair_was_given",
    "Your measure does not depend on which two features it is asked about: pair and controls come out alike.",
)
def of_the_whole_model(families):
    def measure(model, i, j):
        return model.W[0].norm().item()

    return design(families, measure=measure)


@wrong(
    "how_the_pair_was_given",
    "Your measure says the opposite of what is asked: a pair always on together comes out below its controls, and one "
    "that never is above them. It should grow the more two features share a direction.",
)
def distance(families):
    def measure(model, i, j):
        return (model.W[0, :, i] - model.W[0, :, j]).norm().item()

    return design(families, measure=measure)


@right("how_the_pair_was_given")
def by_behaviour(families):
    """What output i gains or loses if feature j is on as well."""

    def measure(model, i, j):
        n = model.b.shape[1]
        features = torch.zeros(1, 2, n)
        features[0, :, i], features[0, 1, j] = 1.0, 1.0
        with torch.no_grad():
            alone, with_other = model(features)[0, :, i]
        return (with_other - alone).item()

    return design(families, measure=measure)


@right("how_the_pair_was_given")
def by_dot_product(families):
    """Unscaled, with six controls."""

    def measure(model, i, j):
        return float(model.W[0].T[i] @ model.W[0].T[j])

    controls = [(0, 2), (3, 0), (0, 4), (1, 5), (6, 1), (1, 7)]
    return design(families, measure=measure, controls=controls)


@right("how_the_pair_was_given")
def by_angle(families):
    def measure(model, i, j):
        one, other = model.W[0, :, i].double(), model.W[0, :, j].double()
        return -torch.rad2deg(torch.arccos((one @ other / one.norm() / other.norm()).clamp(-1, 1))).item()

    return design(families, measure=measure)
