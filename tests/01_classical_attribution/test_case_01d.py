from functools import lru_cache

import torch

from utils.attribution.case_01d import INK_TOLERANCE, activations_of_pairs, ink_of
from utils.course.cases import design_of, expect_enough, expect_function_of_input
from utils.course.checking import Mismatch, expect
from utils.models.digits_cnn import digits_data, load_digits_cnn, random_digits_cnn

DATA = digits_data()
INK = ink_of(DATA.test_images)
TRAINED = load_digits_cnn()
VERDICTS = ("chance", "the images", "the network")
KEYS = {
    "digit": "number",
    "pairs": "list",
    "measure": "callable",
    "labellings": "list",
    "random_seeds": "list",
    "p_shuffled": "number",
    "p_random": "number",
    "control": "number",
    "verdict": VERDICTS,
}


def as_integers(values, of):
    """Whole numbers, whatever they came in."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise Mismatch(f"Your {of} are not all whole numbers.", actual=("not whole", of)) from error
    expect(all(number == int(number) for number in numbers), f"Your {of} are not all whole numbers.", actual=numbers)
    return [int(number) for number in numbers]


def pairs_of(found):
    """The pairs as image numbers, if they change the digit and nothing that is promised to stay."""
    pairs = []
    for pair in found["pairs"]:
        expect(
            isinstance(pair, list | tuple | torch.Tensor) and len(pair) == 2,
            "A pair is two image numbers.",
            actual="no pair",
        )
        pairs.append(tuple(as_integers(pair, "pairs")))
    numbers = [number for pair in pairs for number in pair]
    expect(
        all(0 <= number < len(DATA.test_labels) for number in numbers),
        f"Held-out images have the numbers 0 to {len(DATA.test_labels) - 1}.",
        actual="no image",
    )
    expect_enough(pairs, 20, of="pairs")
    twice = [number for number in dict.fromkeys(numbers) if numbers.count(number) > 1]
    expect(
        not twice,
        "An image occurs in two of your pairs.",
        actual="twice",
        returned=f"image {twice[0]}, {numbers.count(twice[0])} times" if twice else "",
        expected="each image once",
    )
    for i, (first, second) in enumerate(pairs):
        shown = [int(DATA.test_labels[number]) for number in (first, second)]
        expect(
            shown[0] == found["digit"] and shown[1] != found["digit"],
            f"The first image of a pair shows your digit and the second another one; pair {i} does not.",
            actual=("digits", i),
            returned=f"{shown[0]} and {shown[1]}",
            expected=f"{found['digit']:g} and another",
        )
        gap = abs(float(INK[first] - INK[second]))
        expect(
            gap <= INK_TOLERANCE + 1e-4,
            "Some of your pairs differ in ink as well: a unit that adds up ink would pass for one of the digit.",
            actual=("ink", i),
            returned=f"a difference of {gap:.2f} in pair {i}",
            expected=f"at most {INK_TOLERANCE}",
        )
    partners = {int(DATA.test_labels[second]) for _, second in pairs}
    expect(
        len(partners) >= 5,
        "The second images show too few different digits: units that know one of *these* would be found just as well.",
        actual=("partners", len(partners)),
        returned=f"{len(partners)} different digits",
        expected="at least five",
    )
    return pairs


def labellings_of(found, n_pairs):
    """Rows of labels, if they exchange what may be exchanged."""
    rows = []
    for i, labelling in enumerate(found["labellings"]):
        try:
            row = torch.as_tensor(labelling).double()
        except (TypeError, ValueError, RuntimeError) as error:
            raise Mismatch("A labelling is a row of labels, one for each image.", actual="no labels") from error
        expect(
            row.shape == (2 * n_pairs,) and bool(((row == 0) | (row == 1)).all()),
            f"A labelling has {2 * n_pairs} labels, 1 or 0, one for each image; number {i} has not.",
            actual=("shape", tuple(row.shape)),
        )
        expect(
            bool((row.view(-1, 2).sum(1) == 1).all()),
            "Some of your labellings give both images of a pair the same label. Images of different pairs differ in "
            "more than the digit, so that they could not have been exchanged for each other.",
            actual=("both", i),
            returned=f"labelling {i}, {int((row.view(-1, 2).sum(1) != 1).sum())} of {n_pairs} pairs",
            expected="one 1 and one 0 in each pair",
        )
        rows.append(row.float())
    expect(
        len(rows) >= 20,
        f"Your design has {len(rows)} labellings, and needs at least 20.",
        actual=("labellings", len(rows)),
    )
    first = torch.stack(rows).view(len(rows), -1, 2)[:, :, 0]
    # With few pairs and many rows, two are alike by chance now and then.
    different = len(torch.unique(first, dim=0))
    expect(
        different >= max(20, 0.9 * len(rows)),
        f"Of your {len(rows)} labellings only {different} are different ones. A copy adds no evidence; each is to be "
        "dealt out anew.",
        actual="copies of labellings",
        returned=f"{different} different labellings",
        expected=f"about {len(rows)}",
    )
    true = [i for i, row in enumerate(first) if bool(row.all())]
    expect(
        not true,
        "The true labels are one of your labellings. The 1 in (1 + b) / (1 + n) counts them already.",
        actual="the true labels",
        returned=f"the true labels, as labelling {true[0] if true else ''}",
        expected="labels dealt out anew",
    )
    expect(
        0.35 < float(first.mean()) < 0.65,
        "Dealt out anew, each pair's labels are exchanged with probability one half; yours are not.",
        actual=("share", float(first.mean())),
        returned=f"the true order in a share of {float(first.mean()):.2f}",
        expected="about 0.5",
    )
    return rows


def seeds_of(found):
    seeds = as_integers(found["random_seeds"], "random_seeds")
    expect_enough(seeds, 20, of="random_seeds")
    return seeds


def design(answer):
    return design_of(answer, KEYS)


@lru_cache(maxsize=4)
def activations(pairs, seeds):
    """Of the trained network, and of each random one: the same for all checks of a design."""
    return activations_of_pairs(TRAINED, pairs), [activations_of_pairs(random_digits_cnn(s), pairs) for s in seeds]


def laid_out(answer):
    """The design, activations of the trained network and of the random ones, true labels and labellings."""
    found = design(answer)
    pairs = pairs_of(found)
    labellings = labellings_of(found, len(pairs))
    trained, random = activations(tuple(pairs), tuple(seeds_of(found)))
    return found, trained, random, torch.tensor([1.0, 0.0]).repeat(len(pairs)), labellings


def measured(found, items):
    return [float(found["measure"](*item)) for item in items]


def expect_p(found, key, at_least, n, what):
    right = (1 + at_least) / (1 + n)
    expect(
        abs(found[key] - right) < 0.4 / (1 + n),
        f"Run again, your design gives another {key!r}: of {n} {what}, {at_least} have at least as large a measure, "
        f"so that it is (1 + {at_least}) / (1 + {n}).",
        actual=(key, found[key] - right),
        returned=f"{found[key]:.4f}",
        expected=f"{right:.4f}",
    )
    return right


class TestWhoseDiscovery:
    exercise = "whose_discovery"

    def test_pairs(self, answer):
        "pairs of different digits and equal ink, enough of them; labels exchanged within pairs; enough networks"
        found = design(answer)
        pairs = pairs_of(found)
        labellings_of(found, len(pairs))
        seeds_of(found)

    def test_measure(self, answer):
        "the measure depends on its input alone, and grows if units follow the labels"
        found, trained, random, true, labellings = laid_out(answer)
        expect_function_of_input(found["measure"], [(trained, true), (random[0], true), (trained, labellings[0])])
        noise = torch.randn(trained.shape, generator=torch.Generator().manual_seed(0))
        scale = trained.std(0).clamp_min(1e-3)
        planted = trained.mean(0) + (2 * true[:, None] + 0.1 * noise) * scale
        shown, other = measured(found, [(planted, true), (planted, labellings[0])])
        expect(
            shown > other,
            "A network was planted in which every unit follows the true labels, and your measure is no larger for them "
            "than for labels dealt out anew: it does not see what it is to find.",
            actual=("blind", shown - other),
            returned=f"{shown:.4g}, beside {other:.4g}",
        )
        # The two images of a pair are alike for a quarter of the units, which then go with no labelling.
        alike = trained.mean(0) + noise[::2].repeat_interleave(2, dim=0) * scale
        for quarter in range(4):
            left_out = torch.arange(planted.shape[1]) % 4 == quarter
            some = torch.where(left_out, alike, planted)
            with_some, without = measured(found, [(some, true), (some, labellings[0])])
            expect(
                with_some - without > 1e-3 * (shown - other),
                "A network was planted in which three units of four follow the true labels, and your measure does not "
                "see them: it looks at few units, which were picked before.",
                actual="few units",
                returned=f"{with_some:.4g}, beside {without:.4g} for labels dealt out anew",
                expected="a larger measure for the true labels",
            )

    def test_control(self, answer):
        "labels that mean nothing do not single out the trained network, and the control is what the re-run gives"
        found, trained, random, _, labellings = laid_out(answer)
        shares = []
        for labelling in labellings[:10]:
            own, *rivals = measured(found, [(each, labelling) for each in (trained, *random)])
            shares.append(sum((rival > own) + 0.5 * (rival == own) for rival in rivals) / len(rivals))
        control = sum(shares) / len(shares)
        expect(
            control >= 0.25,
            "With labels that mean nothing the trained network stands out as well. Your measure tells trained networks "
            "from random ones (the size of their activations, for instance), whatever the labels are.",
            actual=("stands out", control),
            returned=f"{control:.3f}",
            expected="at least 0.25",
        )
        expect(
            abs(found["control"] - control) < 0.02,
            "Run again, your design gives another 'control'. For each of the first ten labellings, count the random "
            "networks whose measure with this labelling is larger than the trained network's with the same, equal ones "
            "by half, and divide by their number; then take the mean of the ten.",
            actual=("control", found["control"] - control),
            returned=f"{found['control']:.4f}",
            expected=f"{control:.4f}",
        )

    def test_verdict(self, answer):
        "both p-values are what the re-run gives, and the verdict follows from them"
        found, trained, random, true, labellings = laid_out(answer)
        own, *rivals = measured(found, [(each, true) for each in (trained, *random)])
        shuffled = measured(found, [(trained, labelling) for labelling in labellings])
        p_shuffled = expect_p(found, "p_shuffled", sum(v >= own for v in shuffled), len(shuffled), "labellings")
        p_random = expect_p(found, "p_random", sum(v >= own for v in rivals), len(rivals), "random networks")
        right = "chance" if p_shuffled > 0.05 else "the images" if p_random > 0.05 else "the network"
        expect(
            found["verdict"] == right,
            "Your verdict does not follow from your two p-values.",
            actual=("verdict", found["verdict"], right),
            returned=f"{found['verdict']!r}, with p_shuffled {p_shuffled:.3f} and p_random {p_random:.3f}",
            expected=f"{right!r}",
        )
