import torch

from utils.attribution.case_01e import channel_activation, what_the_channel_answers_to
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.models.digits_cnn import digits_data

IMAGES, LABELS = digits_data().test_images, digits_data().test_labels.tolist()
INK = IMAGES.sum((1, 2, 3)).tolist()
REFERENCE = what_the_channel_answers_to()


def activation_of(activation, image):
    return activation(image[None]).item()


def designed(measure=activation_of, **changes):
    found = REFERENCE | {"measure": measure} | changes
    for kind in ("digit", "ink", "control"):
        pairs = found[f"{kind}_pairs"]
        values = [[measure(channel_activation, IMAGES[number]) for number in pair] for pair in pairs]
        found[f"{kind}_effect"] = estimate([second - first for first, second in values])
    moves = [abs(mean) > half for mean, half in (found["digit_effect"], found["ink_effect"])]
    verdicts = {(True, False): "the digit", (False, True): "ink", (True, True): "both", (False, False): "neither"}
    return found | {"verdict": verdicts[tuple(moves)]}


def first_come(fits):
    """Pairs in order of their numbers, without using an image twice."""
    found, used = [], set()
    for first in range(len(LABELS)):
        second = next((j for j in range(len(LABELS)) if not {first, j} & used and j != first and fits(first, j)), None)
        if second is not None:
            found.append((first, second))
            used |= {first, second}
    return found[:20]


@wrong(
    "what_the_channel_answers_to",
    "Your digit pairs leave the ink to chance: the seven has more or less of it than its partner by more than 5 %. "
    "Whatever changes may then be the ink's doing.",
)
def ink_left_to_chance():
    pairs = first_come(lambda i, j: LABELS[i] != 7 and LABELS[j] == 7 and abs(INK[j] - INK[i]) > 0.1 * INK[i])
    return designed(digit_pairs=pairs)


@wrong(
    "what_the_channel_answers_to",
    "Your ink pairs go from one digit to another, inkier one: digit and ink change together. Take both images of a "
    "pair from the same digit.",
)
def inkier_digits():
    return designed(ink_pairs=first_come(lambda i, j: LABELS[i] != LABELS[j] and INK[j] >= 1.2 * INK[i]))


@wrong(
    "what_the_channel_answers_to",
    "One image stands in many of your pairs. Pairs that share an image are not independent, and their interval is "
    "narrower than it should be.",
)
def one_seven_for_all():
    seven = REFERENCE["digit_pairs"][0][1]
    others = [i for i in range(len(LABELS)) if LABELS[i] != 7 and abs(INK[seven] - INK[i]) <= 0.04 * INK[i]]
    return designed(digit_pairs=[(i, seven) for i in others[:20]])


@wrong(
    "what_the_channel_answers_to",
    "Your control pairs change the digit, which is on trial. A control shows what two images differ by when neither "
    "property changes.",
)
def control_across_digits():
    pairs = first_come(lambda i, j: LABELS[i] != LABELS[j] and abs(INK[j] - INK[i]) <= 0.04 * INK[i])
    return designed(control_pairs=pairs)


@wrong(
    "what_the_channel_answers_to",
    "Your verdict goes by the means alone: an effect whose interval includes zero is not shown, however it is signed.",
)
def by_the_means():
    return REFERENCE | {"verdict": "both"}


@wrong(
    "what_the_channel_answers_to",
    "Your measure remembers the image before and returns the difference to it, so it says something else when the "
    "images come in another order. A measure knows only its arguments.",
)
def remembers():
    before = []

    def measure(activation, image):
        before.append(activation(image[None]).item())
        return before[-1] - (before[-2] if len(before) > 1 else 0.0)

    return designed(measure=measure) | {"measure": measure}


@right("what_the_channel_answers_to")
def fewer_pairs_and_tensors():
    """Fourteen pairs of each kind as tensors; the measure is the logarithm of the activation."""

    def measure(activation, image):
        return activation(image[None]).clamp_min(1e-6).log().item()

    cut = {f"{kind}_pairs": [tuple(map(int, pair)) for pair in torch.tensor(REFERENCE[f"{kind}_pairs"])[-14:]]
           for kind in ("digit", "ink", "control")}  # fmt: skip
    return designed(measure=measure, **cut)


@right("what_the_channel_answers_to")
def of_the_ink_itself():
    """A measure that does answer to ink; the verdict then is ink, and honest."""

    def measure(activation, image):
        return float(image.sum() > 19)

    return designed(measure=measure)
