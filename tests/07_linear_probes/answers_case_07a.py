"""Wrong and right designs for the case of part 07a."""

import random

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.data import world
from utils.probes.case_07a import HYPOTHESES, what_a_probe_reads

LISTS = (*HYPOTHESES, "control")


def verdict_of(design):
    read = {}
    for key in LISTS:
        mean, width = design[f"effect_{key}"]
        read[key] = None if abs(abs(mean) - 0.5) <= width else abs(mean) > 0.5
    named = [key for key in HYPOTHESES if read[key]]
    if None in read.values() or read["control"]:
        return "undecided"
    return named[0] if len(named) == 1 else "several" if named else "none"


def run(reader, pairs, interval=estimate, sign=1):
    """A design of these pairs, with what then comes out reported as it is."""
    design = dict(pairs)
    for key in LISTS:
        design[f"effect_{key}"] = interval([sign * (reader(a) - reader(b)) for a, b in pairs[key]])
    return design | {"verdict": verdict_of(design)}


def ours(reader):
    design = what_a_probe_reads(reader)
    return {key: design[key] for key in LISTS}


def changed(reader, key, change):
    pairs = ours(reader)
    return run(reader, pairs | {key: [change(*pair) for pair in pairs[key]]})


@wrong(
    "what_a_probe_reads",
    "In your pairs for 'marks' the second text has one token more: you have put a mark in, and all that stands behind "
    "it "
    "has moved on by one place.",
)
def a_mark_put_in(reader):
    return changed(reader, "marks", lambda a, b: (a, a.replace(". ", '." ', 1)))


@wrong(
    "what_a_probe_reads",
    "Your pairs for 'marks' change the tense as well, as ordinary texts do: present inside, past outside. A reader of "
    "the "
    "tense would change its mind on them.",
)
def marks_with_tense(reader):
    past = {now: past for _, now, past in world.VERBS}

    def change(a, b):
        tokens = b.split(" ")
        last = max(i for i, token in enumerate(tokens) if token in past)
        return a, " ".join([*tokens[:last], past[tokens[last]], *tokens[last + 1 :]])

    return changed(reader, "marks", change)


@wrong("what_a_probe_reads", "Your pairs for 'marks' have the text that ends outside first.")
def marks_turned(reader):
    return changed(reader, "marks", lambda a, b: (b, a))


@wrong("what_a_probe_reads", "Your pairs for 'tense' have the past first.")
def tense_turned(reader):
    return changed(reader, "tense", lambda a, b: (b, a))


@wrong(
    "what_a_probe_reads",
    "In your pairs for 'tense' something else is exchanged besides the verb.",
)
def tense_and_name(reader):
    return changed(reader, "tense", lambda a, b: (a, " ".join(["Zara" if a[:4] != "Zara" else "Adam", *b.split()[1:]])))


@wrong(
    "what_a_probe_reads",
    "You make a text longer by letting the quotation go on. Then more has come since the first mark, too, and either "
    "could "
    "be what the probe reads. Put something in front.",
)
def longer_quotation(reader):
    def change(a, b):
        lead = b[: len(b) - len(a)].strip()
        opening, end = a.split('"')
        return a, f'{opening}"{lead} {end}'

    return changed(reader, "position", change)


@wrong(
    "what_a_probe_reads",
    "Your pairs for 'position' are too close to each other: whoever draws the line at twelve or at fifteen tokens "
    "says the "
    "same of both.",
)
def close_positions(reader):
    return changed(reader, "position", lambda a, b: (a, f"Then {a}"))


@wrong(
    "what_a_probe_reads",
    "Your pairs for 'since' are of unequal length: the longer text ends later, and a reader of the position changes "
    "its "
    "mind as well.",
)
def since_and_position(reader):
    return changed(reader, "since", lambda a, b: (a[a.index(". ") + 2 :], b))


@wrong(
    "what_a_probe_reads",
    "In your control a word is exchanged for one of another kind. Who looks at the kind of the speaker would move "
    "there, "
    "and you could not say why.",
)
def control_of_another_kind(reader):
    return changed(reader, "control", lambda a, b: (a, " ".join(["He", *a.split()[1:]])))


@wrong("what_a_probe_reads", "Your control changes the tense: it is no control.")
def control_with_a_cue(reader):
    pairs = ours(reader)
    return run(reader, pairs | {"control": pairs["tense"]})


@wrong("what_a_probe_reads", "In your control the two texts are the same: nothing has been tried.")
def control_of_nothing(reader):
    return changed(reader, "control", lambda a, b: (a, a))


@wrong("what_a_probe_reads", "You have fewer than ten pairs for each cue.")
def few_pairs(reader):
    return run(reader, {key: rows[:5] for key, rows in ours(reader).items()})


@wrong("what_a_probe_reads", "The same pairs come twice: copies add no evidence.")
def copies(reader):
    return run(reader, {key: rows[:6] * 2 for key, rows in ours(reader).items()})


@wrong(
    "what_a_probe_reads",
    "Your texts end in a verb, and for 'tense' in two different ones: the word at the last token would be enough for "
    "the "
    "probe.",
)
def up_to_the_verb(reader):
    return changed(reader, "tense", lambda a, b: tuple(" ".join(text.split(" ")[:-2]) for text in (a, b)))


@wrong(
    "what_a_probe_reads",
    "Your effects are the second text's reading less the first's.",
)
def other_sign(reader):
    return run(reader, ours(reader), sign=-1)


@wrong(
    "what_a_probe_reads",
    "Your half-widths are standard deviations: how much pairs differ, not how well a mean is known.",
)
def standard_deviations(reader):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), values.std().item()

    return run(reader, ours(reader), interval=spread)


@wrong(
    "what_a_probe_reads",
    "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.",
)
def standard_errors(reader):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (values.std() / len(values) ** 0.5).item()

    return run(reader, ours(reader), interval=spread)


@wrong(
    "what_a_probe_reads",
    "Your verdict is 'marks' for every reader, also for those that don't move when a mark is changed.",
)
def always_the_marks(reader):
    return what_a_probe_reads(reader) | {"verdict": "marks"}


@wrong(
    "what_a_probe_reads",
    "You name the cue with the largest effect, also where none is read. That none of your four explanations holds is "
    "an "
    "answer, too.",
)
def the_largest(reader):
    design = what_a_probe_reads(reader)
    largest = max(HYPOTHESES, key=lambda key: abs(design[f"effect_{key}"][0]))
    return design | {"verdict": largest if design["verdict"] == "none" else design["verdict"]}


@wrong(
    "what_a_probe_reads",
    "Where an interval reaches across one half you decide all the same. It is undecided whether that cue is read.",
)
def without_the_interval(reader):
    design = what_a_probe_reads(reader)
    named = [key for key in HYPOTHESES if abs(design[f"effect_{key}"][0]) > 0.5]
    return design | {"verdict": named[0] if len(named) == 1 else "several" if named else "none"}


@wrong(
    "what_a_probe_reads",
    "Your verdict takes an effect below 0 for none. A probe that says the opposite of a cue reads it, too: what counts "
    "is the size, without the sign.",
)
def with_the_sign(reader):
    design = what_a_probe_reads(reader)
    above = {key: max(design[f"effect_{key}"][0], 0.0) for key in LISTS}
    told = design | {f"effect_{key}": (above[key], design[f"effect_{key}"][1]) for key in LISTS}
    return design | {"verdict": verdict_of(told)}


@wrong(
    "what_a_probe_reads",
    "Your verdict does not ask the control. Where a probe moves although no cue has changed, it is undecided what "
    "moved it in the other pairs.",
)
def without_the_control(reader):
    design = what_a_probe_reads(reader)
    return design | {"verdict": verdict_of(design | {"effect_control": (0.0, 0.0)})}


@wrong(
    "what_a_probe_reads",
    "In your pairs for 'position' there is a mark in what you put in front: the state of the quotation and what has "
    "come since the first mark may change with it.",
)
def quotation_in_front(reader):
    return changed(reader, "position", lambda a, b: (a, f'"{b[: len(b) - len(a)].strip()}" {a}'))


@right("what_a_probe_reads")
def jobs_and_animals(reader):
    """Other texts: jobs for names, a quotation that is over in all pairs but those for the marks."""
    rng, pairs = random.Random(3), {key: [] for key in LISTS}
    for _ in range(20):
        speaker, subject, other = rng.sample(world.JOBS, 3)
        base, now, past = rng.choice(world.VERBS)
        animal, place, other_animal = rng.choice(world.ANIMALS), rng.choice(world.PLACES), rng.choice(world.ANIMALS)
        opening = f'The {speaker} answered: "I {base} the {animal}'
        end = f"The {subject} {now} the {place}"
        lead = f"The {other} {past} the {animal} and the {other_animal}."
        pairs["marks"].append((f"{opening}. {end}", f'{opening}" {end}'))
        pairs["tense"].append((f'{opening}." {end}', f'{opening}." The {subject} {past} the {place}'))
        pairs["position"].append((end, f"{lead} {lead} {end}"))
        told = f'The {speaker} said: "'
        pairs["since"].append((f"{lead} {lead} {told}{end}", f"{told}{lead} {lead} {end}"))
        pairs["control"].append((f"{opening}. {end}", f"{opening}. The {other} {now} the {place}"))
    return run(reader, pairs)


@right("what_a_probe_reads")
def ours_with_lists(reader):
    """Lists for tuples, twelve pairs, and a normal interval."""

    def interval(values):
        values = torch.tensor(values, dtype=torch.float64)
        return [values.mean(), 2.1 * values.std() / len(values) ** 0.5]

    pairs = {key: [list(pair) for pair in rows[:12]] for key, rows in ours(reader).items()}
    return run(reader, pairs, interval)
