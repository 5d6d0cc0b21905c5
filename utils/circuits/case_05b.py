"""The case of part 05b: what the signal says that head 1.3 sends from the end of a prompt."""

import random
from collections.abc import Sequence

from torch import Tensor, nn

from utils.course.cases import estimate
from utils.data.corpus import words
from utils.data.prompts import ioi_prompts, token_id
from utils.data.world import NAMES, PLACES
from utils.patching.case_04b import gift_of, swap_heads


def what_the_signal_says(model: nn.Module) -> dict[str, object]:
    """Design an experiment: does head 1.3 tell the others a name, or a place in the opening?

    Head 1.3 looks at who gives, and what it writes decides who is named. It could say "not Paul", and it could say "not
    the one who was named second". Both fit all that swaps of the giver show, since the other giver has another name and
    another place. A pair is a prompt and a donor. Head 1.3 is given the output, at the last token, that it has on the
    donor, and one asks by how much the prompt's own receiver loses his lead over the prompt's giver.

    Args:
        model: The course model.

    Returns:
        A dict with these keys:

        "nothing", "place", "name", "both": Lists of at least 10 pairs of texts (prompt, donor) of as many words. Every
            text is about two of the world's names, says both in its opening and then that one of them gives. Between
            prompt and donor changes, of the giver, in "nothing" neither name nor place, in "place" the place alone, in
            "name" the name alone, in "both" both:

            - "nothing": the same two people in the same places; other words differ, at least one.
            - "place": the same two people, named in the other order in the opening; the same one gives. No other word
              differs.
            - "name": two people who are not in the prompt stand where its two stand. No other word differs.
            - "both": the other of the two gives. No other word differs.

            Within a list, no two prompts are built alike (the same text but for names, places, things and adjectives),
            and both orders occur at least 3 times: the receiver named first, the giver named first.
        "measure": A function ``measure(logits, receiver, giver)`` of the logits [d_vocab] behind a prompt and the names
            of its receiver and its giver. It returns a number, the larger the more the receiver is said and the giver
            not: behind each prompt, as it is, it is larger than with the two names exchanged; and it rises if only the
            receiver's logit rises past the giver's, and falls if only the giver's rises past the receiver's.
        "control_heads": At least four heads, a list of pairs (layer, head) without 1.3, which are swapped together. In
            no list is their mean effect, in size, more than a quarter of the mean of "effect_both".
        "effect_nothing", "effect_place", "effect_name", "effect_both": A pair's effect is the measure of the prompt as
            it is less that with head 1.3's output from the donor. The mean over the list, and the half-width of its
            95 % interval. The interval of "effect_both" lies above 0.
        "verdict": An effect *counts* if its interval lies above a quarter of the mean of "effect_both", and does not
            if it lies below. (That of "nothing" must not count.) "name" if name counts and place does not; "place" if
            place counts and name does not; "name and place" if both count; "undecided" in all other cases.
    """
    rng, lists = random.Random(0), {key: [] for key in ("nothing", "place", "name", "both")}
    control = [(layer, head) for layer in (0, 1) for head in range(4) if (layer, head) != (1, 3)]
    for prompt in list({prompt.unit: prompt for prompt in ioi_prompts(300, 0)}.values())[:24]:
        said, receiver, giver = words(prompt.text), prompt.answer, prompt.foil
        io, s1, s2 = (prompt.at[name] - 1 for name in ("IO", "S1", "S2"))  # position 0 is <bos>
        place = next(i for i, word in enumerate(said) if word in PLACES)
        someone, another = rng.sample([name for name in NAMES if name not in (receiver, giver)], 2)
        changes = {
            "nothing": {place: rng.choice([word for word in PLACES if word != said[place]])},
            "place": {io: giver, s1: receiver},
            "name": {io: someone, s1: another, s2: another},
            "both": {s2: receiver},
        }
        for key, change in changes.items():
            donor = " ".join(change.get(i, word) for i, word in enumerate(said))
            lists[key].append((" ".join(said), donor))

    def measure(logits: Tensor, receiver: str, giver: str) -> float:
        return (logits[token_id(receiver)] - logits[token_id(giver)]).item()

    def effects(pairs: Sequence[tuple[str, str]], heads: Sequence[tuple[int, int]]) -> list[float]:
        prompts, donors = zip(*pairs, strict=True)
        found = []
        for text, *runs in zip(
            prompts, swap_heads(model, prompts, donors, []), swap_heads(model, prompts, donors, heads), strict=True
        ):
            own, swapped = (measure(logits, gift_of(text).receiver, gift_of(text).giver) for logits in runs)
            found.append(own - swapped)
        return found

    found = {key: estimate(effects(pairs, [(1, 3)])) for key, pairs in lists.items()}
    quarter = found["both"][0] / 4
    counts = tuple(
        None if abs(mean - quarter) <= half_width else mean > quarter
        for mean, half_width in (found[key] for key in ("nothing", "name", "place"))
    )
    readings = {
        (False, True, False): "name",
        (False, False, True): "place",
        (False, True, True): "name and place",
    }
    return {
        **lists,
        "measure": measure,
        "control_heads": control,
        **{f"effect_{key}": value for key, value in found.items()},
        "verdict": readings.get(counts, "undecided"),
    }
