"""The check of the case of part 08b: gains are measured again, and other colleagues' trouble has to be found, too."""

import torch

from utils.course.cases import (
    design_of,
    estimate,
    expect_enough,
    expect_function_of_input,
    expect_reported,
    lent,
)
from utils.course.checking import expect
from utils.sae.case_08b import COLLEAGUES, KNOBS, setting

KEYS = {
    "measure": "callable",
    "seeds": "list",
    **{f"gain_{knob}": "pair" for knob in KNOBS},
    "verdict": KNOBS,
}


def seeds_of(design):
    seeds = [seed.item() if hasattr(seed, "item") else seed for seed in design["seeds"]]
    for seed in seeds:
        expect(
            isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= 9,
            "Seeds are whole numbers from 0 to 9.",
            actual="seeds", returned=f"{seed!r}",
        )  # fmt: skip
    expect_enough(seeds, 5, of="seeds")
    return seeds


def gains_again(design, given, seeds):
    """Each setting's gain at each seed, by the learner's measure."""
    settings = [given.colleague, *({**given.colleague, knob: given.usual[knob]} for knob in KNOBS)]
    runs = [given.run(changed, seed) for changed in settings for seed in seeds]
    with lent(*(run.sae for run in runs)):
        values = torch.tensor(expect_function_of_input(design["measure"], [tuple(run) for run in runs]))
    table = values.double().view(len(settings), len(seeds))
    return {knob: (table[i + 1] - table[0]).tolist() for i, knob in enumerate(KNOBS)}


def expect_of_x(design, given):
    run, other = (given.run(given.usual, seed) for seed in (0, 1))
    with lent(run.sae):
        own, foreign = expect_function_of_input(design["measure"], [(run.sae, run.x), (run.sae, other.x)])
    expect(
        own > foreign,
        "Your measure rates a dictionary no better on its own activations than on those of other features. It does not "
        "say how well x is reconstructed.",
        actual=("not of x", round(own, 1), round(foreign, 1)),
        returned=f"{own:.4g} on its own, {foreign:.4g} elsewhere",
    )  # fmt: skip


def expect_no_deviation(reported, values, of):
    """With five to seven seeds the units' standard deviation lies so near the half-width that it would pass for it."""
    deviation, (_, half_width) = torch.tensor(values).std().item(), estimate(values)
    expect(
        deviation < 1e-3 or abs(reported[1] - deviation) > 1e-3 * deviation,
        f"The half-width of {of!r} is the standard deviation over seeds. That of the mean's 95 % interval is "
        f"{half_width:.3g}.",
        actual=("deviation", of), returned=f"{reported[1]:.4g}", expected=f"{half_width:.4g}",
    )  # fmt: skip


class TestWhichSettingCosts:
    exercise = "which_setting_costs"

    def test_design(self, answer):
        "enough seeds, one change at a time, a measure of what is used; then the verdict, for three colleagues"
        for culprit in COLLEAGUES:
            given = setting(culprit)
            design = design_of(answer, KEYS, given)
            seeds = seeds_of(design)
            expect_of_x(design, given)
            gains = gains_again(design, given, seeds)
            means = {knob: sum(values) / len(values) for knob, values in gains.items()}
            best = max(means, key=means.get)
            expect(
                best == culprit,
                f"By your measure the usual value of {best!r} helps most, and the trouble is another: it does not see "
                "what is wrong with the reconstructions as they are used, with the threshold.",
                actual=("measure", culprit, best), returned=f"largest gain: {best}",
            )  # fmt: skip
            others = max(mean for knob, mean in means.items() if knob != best)
            expect(
                means[best] > others + 0.2 * abs(means[best]),
                "By your measure no setting stands out: it does not see what is wrong with the reconstructions as they "
                "are used, with the threshold.",
                actual=("nothing stands out", culprit), returned=f"gains {means[best]:.3g} and {others:.3g}",
            )  # fmt: skip
            for knob, values in gains.items():
                expect_reported(design[f"gain_{knob}"], values, of=f"gain_{knob}", atol=1e-4)
                expect_no_deviation(design[f"gain_{knob}"], values, f"gain_{knob}")
            expect(
                design["verdict"] == best,
                f"The largest mean gain is that of {best!r}, and your verdict is another.",
                actual=("verdict", best, design["verdict"]), returned=f"{design['verdict']!r}",
            )  # fmt: skip
