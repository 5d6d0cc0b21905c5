from functools import cache

import torch

from utils.attribution.case_01e import channel_activation, what_the_channel_answers_to
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.models.digits_cnn import digits_data

IMAGES, LABELS = digits_data().test_images, digits_data().test_labels.tolist()
INK = IMAGES.sum((1, 2, 3)).tolist()


@cache
def ours():
    return what_the_channel_answers_to()


def activation_of(activation, image):
    return activation(image[None]).item()


def designed(measure=activation_of, **changes):
    found = ours() | {"measure": measure} | changes
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
    "In some of your digit pairs the seven has more ink than its partner, or less, by over 5 % of the partner's. "
    "Whatever changes may then be the ink's doing.",
)
def ink_left_to_chance():
    pairs = first_come(lambda i, j: LABELS[i] != 7 and LABELS[j] == 7 and abs(INK[j] - INK[i]) > 0.1 * INK[i])
    return designed(digit_pairs=pairs)


@wrong(
    "what_the_channel_answers_to",
    "In some of your ink pairs the two images are of different digits, so that digit and ink change together. Take "
    "both from the same digit, and their numbers from the held-out images.",
)
def inkier_digits():
    return designed(ink_pairs=first_come(lambda i, j: LABELS[i] != LABELS[j] and INK[j] >= 1.2 * INK[i]))


@wrong(
    "what_the_channel_answers_to",
    "An image stands in more than one of your pairs. Pairs that share an image are not independent, and their interval "
    "is narrower than it should be.",
)
def one_seven_for_all():
    seven = ours()["digit_pairs"][0][1]
    others = [i for i in range(len(LABELS)) if LABELS[i] != 7 and abs(INK[seven] - INK[i]) <= 0.04 * INK[i]]
    return designed(digit_pairs=[(i, seven) for i in others[:20]])


@wrong(
    "what_the_channel_answers_to",
    "Some of your control pairs change the digit, which is on trial. A control shows what two images differ by when "
    "neither property changes.",
)
def control_across_digits():
    pairs = first_come(lambda i, j: LABELS[i] != LABELS[j] and abs(INK[j] - INK[i]) <= 0.04 * INK[i])
    return designed(control_pairs=pairs)


@wrong(
    "what_the_channel_answers_to",
    "Some of your control pairs differ in ink by more than 5 % of the first's. Ink is on trial: a control shows what "
    "two images differ by when neither property changes.",
)
def control_of_any_ink():
    return designed(
        control_pairs=first_come(lambda i, j: LABELS[i] == LABELS[j] and abs(INK[j] - INK[i]) > 0.1 * INK[i])
    )


@wrong(
    "what_the_channel_answers_to",
    "Your measure does not use the activation that it is handed: whichever that is, the numbers stay the same. It "
    "measures something else, or a channel that it fetches by itself, and nobody could ask it about another one.",
)
def of_the_ink_itself():
    return designed(measure=lambda activation, image: float(image.sum() > 19))


@wrong(
    "what_the_channel_answers_to",
    "Your measure takes the image into account beside its activation (it divides by ink, say, or adds some of it). "
    "What is on trial then moves the measure even where the channel does not move.",
)
def activation_for_the_ink():
    return designed(measure=lambda activation, image: (activation(image[None]) / image.sum()).item())


@wrong(
    "what_the_channel_answers_to",
    "In some of your ink pairs the second image has less ink than the first. It is the other way round: from less to "
    "more, by at least 20 %.",
)
def from_more_to_less():
    return designed(ink_pairs=[pair[::-1] for pair in ours()["ink_pairs"]])


@wrong(
    "what_the_channel_answers_to",
    "In some of your ink pairs the ink grows by less than 20 % of the first image's. A change so small would hardly "
    "show, whatever the channel answers to.",
)
def a_little_more_ink():
    return designed(ink_pairs=first_come(lambda i, j: LABELS[i] == LABELS[j] and 1.05 < INK[j] / INK[i] < 1.18))


@wrong(
    "what_the_channel_answers_to",
    "Your verdict goes by the means alone: an effect whose interval includes zero is not shown, however it is signed.",
)
def by_the_means():
    return ours() | {"verdict": "both"}


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

    cut = {f"{kind}_pairs": [tuple(map(int, pair)) for pair in torch.tensor(ours()[f"{kind}_pairs"])[-14:]]
           for kind in ("digit", "ink", "control")}  # fmt: skip
    return designed(measure=measure, **cut)


@right("what_the_channel_answers_to")
def whether_it_is_loud():
    """A measure with two values."""
    return designed(measure=lambda activation, image: float(activation(image.unsqueeze(0)) > 0.9))
