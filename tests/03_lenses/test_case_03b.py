"""The check of the case of part 03b: the roles in every pair are read anew, and the design is run again."""

import copy

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.data.corpus import words
from utils.data.prompts import giving_roles
from utils.data.world import ADJECTIVES, ANIMALS, JOBS, NAMES, PLACES, THINGS
from utils.models.course_model import load_course_model

ROLES = ("repeated", "giver", "last", "first")
TOGETHER = frozenset({"giver", "first"})
KEYS = {
    **dict.fromkeys((*ROLES, "control"), "list"),
    "measure": "callable",
    "reach": "pair",
    **{f"effect_{role}": "pair" for role in ROLES},
    "verdict": (*ROLES, "giver or first", "none of the four", "undecided"),
}
ROLE = {
    "repeated": "who is said more than once",
    "giver": "who gives",
    "last": "who is said last",
    "first": "who is first behind the opening",
}
MASKED = {
    word: mark
    for mark, kind in (("person", (*NAMES, *JOBS)), ("place", PLACES), ("thing", (*THINGS, *ANIMALS)), ("", ADJECTIVES))
    for word in kind
}


class TestWhatHeadOneThreeLooksFor:
    exercise = "what_head_1_3_looks_for"

    def test_design(self, answer):
        "pairs that change one role each, a measure of head 1.3, and what the numbers say when run again"
        model, silenced = models()
        design = design_of(answer, KEYS, model)
        expect_no_hooks(model)
        changed = {role: expect_pairs(design[role], role) for role in ROLES}
        expect_pairs(design["control"], "control")
        measure = design["measure"]
        expect_measures_a_person(measure, model, [design[role][0] for role in ROLES])
        effects = {role: effects_of(measure, model, design[role]) for role in ROLES}
        control = effects_of(measure, model, design["control"])
        leads = leads_of(measure, model, design["control"])
        expect_no_hooks(model)
        half = expect_reach(leads) / 2
        expect_about_head_1_3(measure, silenced, design, half)
        expect_control_at_rest(control, half)
        expect_reported(design["reach"], leads, of="reach")
        for role in ROLES:
            expect_reported(design[f"effect_{role}"], effects[role], of=f"effect_{role}")
        expect_verdict(design, changed)


def models():
    """The course model, and a copy in which head 1.3 looks nowhere in particular and writes nothing.

    Both new for every check: what one answer leaves on them is not to be found by the next.
    """
    model = load_course_model()
    silenced = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("W_Q", "b_Q", "W_O"):
            getattr(silenced.blocks[1].attn, name)[3] = 0
    return model, silenced


def expect_no_hooks(model):
    left = [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]
    expect(
        not left,
        "Your measure leaves hooks on the model: every later run is changed by them.",
        actual="hooks",
        returned=f"hooks at {', '.join(left[:3])}{' and elsewhere' if len(left) > 3 else ''}",
    )


def expect_pairs(pairs, name):
    """Expect pairs as the docstring describes them; which roles change hands in all of them."""
    changed = [expect_pair(pair, f'design["{name}"][{i}]', name) for i, pair in enumerate(pairs)]
    expect_enough(pairs, 8, of=f"pairs in {name!r}")
    templates = {tuple(template(text) for text in pair[:2]) for pair in pairs}
    expect(
        len(templates) > 1,
        f"All your pairs in {name!r} are one sentence with other people and things in it. What they show may be a "
        "habit of this sentence: take at least two templates.",
        actual=("one template", name),
        returned=" ".join(template(pairs[0][0])),
    )
    expect(
        len(set(changed)) == 1,
        f"In some of your pairs in {name!r} giver and first change together, in others only one of them does. Their "
        "mean is about neither: make two designs of it, or one.",
        actual=("mixed", name),
        returned=" and ".join(
            f"{listed(kind)} in {sum(kind == other for other in changed)}" for kind in sorted(set(changed), key=len)
        )
        + f" of {len(changed)} pairs",
    )
    return changed[0]


def template(text):
    return tuple(mark for word in words(text) if (mark := MASKED.get(word, word)))


def expect_pair(pair, where, name):
    """Expect one pair to be as the docstring says; the set of roles that change hands in it."""
    expect(
        isinstance(pair, list | tuple) and len(pair) == 3 and all(isinstance(text, str) for text in pair),
        "A pair is a tuple of three texts: a prompt, the changed prompt, and the person who loses the role.",
        actual=("tuple", type(pair).__name__),
        returned=f"{where} = {pair!r}"[:200],
    )
    *texts, person = pair
    before, after = (read(text, where) for text in texts)
    change = {role for role in ROLES if holders(before, role) != holders(after, role)}
    told = f"{where}: {told_roles(texts[0], before)}; {told_roles(texts[1], after)}"
    if name == "control":
        expect(
            not change,
            f"Your control changes {listed(change)}. A control is a change that leaves all four roles in the same "
            "hands, and should do nothing.",
            actual=("control changes", sorted(change)),
            returned=told,
        )
        expect(
            texts[0] != texts[1],
            "Your control changes nothing at all, so it can't move.",
            actual="no control",
            returned=f"{where}: {texts[0]!r} twice",
        )
        expect(
            person == before.giver == before.first,
            "The person of a control gives and is the first behind the opening: somebody whom the head may go by, so "
            "that the control could move.",
            actual=("control's person", name),
            returned=told,
            expected=f"{person!r} as giver and first",
        )
        return frozenset()
    others = change - {name} - (TOGETHER if name in TOGETHER else frozenset())
    expect(
        not others,
        f"Your pairs in {name!r} also change {listed(others)}. Then more than one reading predicts the effect, and it "
        "can't tell them apart.",
        actual=("also changes", name, sorted(others)),
        returned=told,
    )
    expect(
        name in change,
        f"In a pair of {name!r} it is the same before and after {ROLE[name]}: nothing that this reading is about has "
        "changed.",
        actual=("unchanged", name),
        returned=told,
    )
    expect(
        person in holders(before, name) and person not in holders(after, name),
        f"The person of a pair in {name!r} has this role in the first text and has lost it in the second. Turn the "
        "pair around, or name the other person.",
        actual=("person", name, person in holders(after, name)),
        returned=f"{person!r} in {told}",
    )
    return frozenset(change)


def read(text, where):
    """The roles in a text that ends where the receiver comes, and has an opening."""
    try:
        roles = giving_roles(text)
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(text)) from error
    expect(
        words(text)[-1] == "to",
        'A text ends with "to", where the receiver\'s name comes next: that is where the head looks from.',
        actual="end",
        returned=f"{where}: {text!r}",
    )
    expect(
        roles.first is not None,
        "A text needs an opening, up to a comma or full stop, and a person behind it: without, nobody is the first "
        "behind the opening, and one of the four readings says nothing.",
        actual="no opening",
        returned=f"{where}: {text!r}",
    )
    return roles


def holders(roles, role):
    """The people who have a role."""
    found = getattr(roles, role)
    return frozenset(found) if role == "repeated" else frozenset({found} - {None})


def told_roles(text, roles):
    return f"{text!r} has " + ", ".join(f"{role} {' and '.join(sorted(holders(roles, role))) or '–'}" for role in ROLES)


def listed(roles):
    return " and ".join(ROLE[role] for role in ROLES if role in roles)


def expect_measures_a_person(measure, model, pairs):
    """Expect a function of model, text and person, the person included."""
    values = expect_function_of_input(measure, [(model, text, person) for text, _, person in pairs])
    same = 0
    for value, (text, _, person) in zip(values, pairs, strict=True):
        others = [float(plain(measure(model, text, other))) for other in giving_roles(text).said if other != person]
        same += all(abs(other - value) <= 1e-5 * abs(value) + 1e-6 for other in others)
    expect(
        same < len(pairs),
        "Your measure gives the same number for everybody in a text: it does not look at the person it is asked about. "
        "A measure of whoever has a role follows the role from one text to the other, and not the head.",
        actual="no person",
        returned="one number for all people of a text, in each list's first text",
    )


def effects_of(measure, model, pairs):
    """A list's effects, pair by pair."""
    found = []
    for text, changed, person in pairs:
        before, after = (plain(measure(model, x, person)) for x in (text, changed))
        found.append(float(before) - float(after))
    return found


def leads_of(measure, model, pairs):
    """By how much the measure of a pair's person leads those of the others in its first text, pair by pair."""
    found = []
    for text, _, person in pairs:
        people = {who: float(plain(measure(model, text, who))) for who in giving_roles(text).said}
        own = people.pop(person)
        found.append(own - sum(people.values()) / len(people))
    return found


def expect_reach(leads):
    """The mean of these leads, which has to be clear of 0."""
    mean, half_width = estimate(leads)
    expect(
        mean + half_width >= 0,
        "Your measure is smaller for the people of your control than for the others in their texts. It should be the "
        "larger, the more the head goes by this person: turn its sign.",
        actual=("sign", mean),
        returned=f"reach {mean:.3g} ± {half_width:.2g}",
    )
    expect(
        mean - half_width > 0,
        "Your measure does not tell the people of your control, who give and come first, from the others in their "
        "texts. A measure that does not move refutes nothing.",
        actual="nothing moves",
        returned=f"reach {mean:.3g} ± {half_width:.2g}",
    )
    return mean


def expect_about_head_1_3(measure, silenced, design, half):
    """Expect little to move without the head, up or down, compared with what the measure can fall by."""
    without = {role: estimate(effects_of(measure, silenced, design[role][:8]))[0] for role in ROLES}
    role, most = max(without.items(), key=lambda item: abs(item[1]))
    expect(
        abs(most) < half,
        f"With head 1.3 silenced your measure still moves, in {role!r} by {most:.3g} where half of its reach is "
        f"{half:.3g}. Something else than head 1.3 moves it: another head, or the rest of the model.",
        actual=("not head 1.3", role, most),
        returned=", ".join(f"{role} {mean:.3g}" for role, mean in without.items()),
        expected=f"all within ±{half:.3g}",
    )


def expect_control_at_rest(control, half):
    mean, half_width = estimate(control)
    expect(
        abs(mean) + half_width < half,
        f"Your control moves as well, by {mean:.3g} ± {half_width:.2g}, and half of its reach is {half:.3g}. "
        "Nobody's role has changed in it, so the measure answers to something else that your texts differ in.",
        actual=("control moves", mean),
        returned=f"{mean:.3g} ± {half_width:.2g}",
        expected=f"all of the interval within ±{half:.3g}",
    )


def verdict_of(effects, changed, half):
    """What follows from four (mean, half-width), and from which roles change hands in each list."""
    counts = {}
    for role, (mean, half_width) in effects.items():
        counts[role] = True if mean - half_width > half else False if mean + half_width < half else None
    if None in counts.values():
        return "undecided", counts
    holds = [role for role in ROLES if all(counts[name] == (role in changed[name]) for name in ROLES)]
    if set(holds) == TOGETHER:
        return "giver or first", counts
    return holds[0] if holds else "none of the four", counts


def expect_verdict(design, changed):
    effects = {role: design[f"effect_{role}"] for role in ROLES}
    follows, counts = verdict_of(effects, changed, design["reach"][0] / 2)
    says = {True: "counts", False: "does not count", None: "is open"}
    told = ", ".join(f"{role} {says[counted]}" for role, counted in counts.items())
    together = [name for name in sorted(TOGETHER) if changed[name] == TOGETHER]
    if follows == "giver or first":
        told += ". In your pairs these two always change together, and no number of such pairs tells them apart"
    elif together:
        told += f" (in {' and '.join(map(repr, together))} giver and first change together)"
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers: {told}.",
        actual=("verdict", design["verdict"], follows),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_each_reading_would_have_had_its_own_verdict():
    """On our pairs a head that goes by a role gives this role as the verdict, for all four."""
    from utils.lenses.case_03b import what_head_1_3_looks_for

    design = what_head_1_3_looks_for(models()[0])
    assert design["verdict"] == "first"
    changed = {role: expect_pairs(design[role], role) for role in ROLES}
    assert changed == {role: frozenset({role}) for role in ROLES}
    for reading in ROLES:

        def ideal(model, text, person, reading=reading):
            return float(person in holders(giving_roles(text), reading))

        effects = {role: estimate(effects_of(ideal, None, design[role])) for role in ROLES}
        assert verdict_of(effects, changed, estimate(leads_of(ideal, None, design["control"]))[0] / 2)[0] == reading


def test_pairs_in_which_somebody_acts_before_leave_no_reading():
    """As the solution says: with such pairs for half of "first" the verdict is open, with them alone none holds."""
    from utils.data.corpus import IOI_OPENINGS
    from utils.lenses.case_03b import what_head_1_3_looks_for

    model = models()[0]
    design, pairs = what_head_1_3_looks_for(model), []
    effects = {role: design[f"effect_{role}"] for role in ROLES}
    changed = {role: frozenset({role}) for role in ROLES}
    for i, opening in enumerate(IOI_OPENINGS):
        a, b, c = NAMES[3 * i + 1], NAMES[3 * i + 62], NAMES[3 * i + 30]
        met = opening.format(a=a, b=b, place="park")
        pairs.append((f"{met} {b} gave a ball to", f"{met} {c} opened the door, and {b} gave a ball to", b))
    assert expect_pairs(pairs, "first") == changed["first"]
    for first, verdict in ((pairs, "none of the four"), (pairs[:5] + design["first"][5:], "undecided")):
        effects["first"] = estimate(effects_of(design["measure"], model, first))
        assert verdict_of(effects, changed, design["reach"][0] / 2)[0] == verdict


def test_where_head_1_3_looks():
    """The table of the solution: mean attention from the end to the people, ten openings."""
    from utils.data.corpus import IOI_OPENINGS
    from utils.models.phenomena.ioi import attention_to_people

    model, looks = models()[0], {}
    for text in TABLE:
        found = []
        for i, opening in enumerate(IOI_OPENINGS):
            a, b, c = NAMES[3 * i + 1], NAMES[3 * i + 62], NAMES[3 * i + 30]
            met = opening.format(a=a, b=b, place="park")
            people = attention_to_people(model, f"{met} {text.format(A=a, B=b, C=c)}", 1, 3)
            found.append([people.get(who, 0.0) for who in (a, b, c)])
        looks[text] = torch.tensor(found).mean(0)
    for text, (who, at_least) in TABLE.items():
        place = "ABC".index(who)
        assert looks[text].argmax() == place, (text, looks[text])
        assert looks[text][place] > at_least, (text, looks[text])


TABLE = {
    "{B} gave a ball to": ("B", 0.97),
    "{C} gave a ball to": ("C", 0.97),
    "{B} gave {C}'s ball to": ("B", 0.85),
    "{C} gave {A}'s ball to": ("C", 0.8),
    "{B}'s dog gave a ball to": ("B", 0.9),
    "a ball was handed by {B} to": ("B", 0.6),
    "{C}'s ball was handed by {B} to": ("C", 0.75),
    "{A}'s ball was handed by {B} to": ("A", 0.75),
}
