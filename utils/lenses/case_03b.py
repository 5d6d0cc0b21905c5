"""The case of part 03b: what head 1.3 looks for."""

import random

from torch import nn

from utils.course.cases import estimate
from utils.data.corpus import IOI_OPENINGS
from utils.data.prompts import giving_roles
from utils.data.world import NAMES, PLACES, THINGS
from utils.models.phenomena.ioi import attention_to_people


def what_head_1_3_looks_for(model: nn.Module) -> dict[str, object]:
    """Design an experiment: what does head 1.3 look for from the end of "…, Paul gave a ball to"?

    Four readings are open, and each is a role that a person can have in a text: "repeated" (said more than once),
    "giver", "last" (the last to be said), "first" (the first to be said behind the opening). ``giving_roles(text)``
    tells who has which. In a pair of texts one person loses one role and all other roles stay where they are; the
    reading that is right predicts that the head lets go of this person, and the others that it does not.

    Args:
        model: The course model.

    Returns:
        A dict with these keys:

        "repeated", "giver", "last", "first": Lists of at least 8 pairs. A pair is a tuple (text, changed, person).
            ``person`` has the list's role in ``text`` and not in ``changed``. No other role changes hands: ``repeated``
            holds the same people for both texts, and so on. One exception: in "giver" and "first" these two roles may
            change together, in all pairs of a list or in none of its pairs; the two lists need not do alike.
            Texts end with "to" and have an opening. In each list there are at least two templates: sentences that
            differ in more than their people, places, things and adjectives.
        "control": A list of at least 8 such pairs in which none of the four roles changes hands. ``person`` gives and
            is the first in both texts.
        "measure": A function ``measure(model, text, person)`` that returns a number, the larger the more head 1.3
            goes by this person; it leaves no hooks on the model. A pair's effect is its measure of ``text`` less that
            of ``changed``. It is about head 1.3: with that head silenced (zeros for its W_Q, b_Q and W_O) no list's
            mean effect, up or down, is half as large as the mean of "reach".
        "reach": The mean over the control's first texts, and the half-width of its 95 % interval, of the measure of
            ``person`` less the mean of the measures of the other people in that text: about how far the measure falls
            if the head lets go of a person. The interval lies above 0.
        "effect_repeated", "effect_giver", "effect_last", "effect_first": The mean of the list's effects, and the
            half-width of its 95 % interval.
        "verdict": A role counts if the whole interval of its effect lies above half of the mean of "reach", and does
            not count if the whole interval lies below. (The control does not count either, in size.) A reading holds if
            exactly those lists count in which its role changes hands. The verdict is "undecided" if some role neither
            counts nor does not. Otherwise it is the reading that holds; "giver or first" if these two hold; "none of
            the four" if none does.
    """
    rng, design = random.Random(0), {name: [] for name in ("repeated", "giver", "last", "first", "control")}
    for opening in IOI_OPENINGS:
        a, b, c, d = rng.sample(NAMES, 4)
        place, thing, other = rng.choice(PLACES), *rng.sample(THINGS, 2)
        met, without = (opening.format(a=a, b=friend, place=place) for friend in (b, d))
        plain = f"{met} {b} gave a {thing} to"
        design["repeated"].append((plain, f"{without} {b} gave a {thing} to", b))
        design["giver"].append((f"{met} {c} gave {b}'s {thing} to", f"{met} {c}'s {thing} was handed by {b} to", c))
        design["last"].append((plain, f"{met} {b} gave {c}'s {thing} to", b))
        design["first"].append(
            (f"{met} a {thing} was handed by {b} to", f"{met} {c}'s {thing} was handed by {b} to", b)
        )
        design["control"].append((plain, f"{met} {b} showed the {other} to", b))

    def measure(model: nn.Module, text: str, person: str) -> float:
        return attention_to_people(model, text, 1, 3).get(person, 0.0)

    def lead(text: str, person: str) -> float:
        others = [measure(model, text, other) for other in giving_roles(text).said if other != person]
        return measure(model, text, person) - sum(others) / len(others)

    reach = estimate([lead(text, person) for text, _, person in design["control"]])
    roles, effects = ("repeated", "giver", "last", "first"), {}
    for role in roles:
        effects[role] = estimate([measure(model, x, who) - measure(model, y, who) for x, y, who in design[role]])
    count = [role for role in roles if effects[role][0] - effects[role][1] > reach[0] / 2]
    open_ = [role for role in roles if abs(effects[role][0] - reach[0] / 2) <= effects[role][1]]
    return {
        **design,
        "measure": measure,
        "reach": reach,
        **{f"effect_{role}": effect for role, effect in effects.items()},
        # In these pairs each role changes hands in its own list alone: one that counts is the reading that holds.
        "verdict": "undecided" if open_ else count[0] if len(count) == 1 else "none of the four",
    }
