"""Wrong and right designs for the case of part 05a."""

import random
from functools import lru_cache

import torch

from utils.circuits.case_05a import KIND_OF, KINDS, what_a_repeat_goes_by
from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data.prompts import token_id


@made_once
def our_design(model):
    return what_a_repeat_goes_by(model) | {"measure": given_in_layer_2}


def given_in_layer_2(model, text, answer):
    """The reference's measure, on attention that is remembered."""
    return attention(model, text)[:, -1, place_of(answer, text)].mean().item()


@lru_cache(maxsize=1024)
def attention(model, text, layer=2):
    with torch.no_grad():
        name = f"blocks.{layer}.attn.hook_pattern"
        return model.run_with_cache(model.to_tokens(text), names_filter=name)[1][name][0]


def place_of(answer, text):
    return text.split().index(answer) + 1


# A wrong design that is refused before its numbers are read keeps the numbers of ours.


def verdict_of(design):
    repeat, similar, moved = (design[f"effect_{name}"] for name in ("repeat", "similar", "moved"))
    half = repeat[0] / 2
    keeps = tuple(None if abs(mean - half) <= width else mean > half for mean, width in (similar, moved))
    readings = {(False, True): "word", (True, True): "kind", (True, False): "distance"}
    return readings.get(keeps, "undecided")


def changed(model, interval=estimate, baseline=True, **parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    design = our_design(model) | parts
    found = [[design["measure"](model, text, t[4]) for text in t[:4]] for t in design["trials"]]
    for i, name in enumerate(("repeat", "similar", "moved")):
        design[f"effect_{name}"] = interval([row[i] - (row[3] if baseline else 0.0) for row in found])
    return design | {"verdict": verdict_of(design)}


def with_trials(model, change):
    """Our trials, each changed: from lists of words to lists of words."""
    design, trials = our_design(model), []
    for *texts, answer in design["trials"]:
        trials.append((*(" ".join(words) for words in change(*(text.split() for text in texts))), answer))
    return design | {"trials": trials}


@wrong(
    "what_a_repeat_goes_by",
    "In your 'similar' texts the last word is of another kind than the one it stands for. That the answer is lost then "
    "says nothing about kinds.",
)
def another_kind(model):
    def change(repeat, similar, moved, unrelated):
        other = next(w for w in KIND_OF if w not in repeat and KIND_OF[w] != KIND_OF[repeat[-1]])
        return repeat, [*similar[:-1], other], moved, unrelated

    return with_trials(model, change)


@wrong(
    "what_a_repeat_goes_by",
    "Your 'similar' texts end with a word of the repeated word's kind, and there are other words of that kind in the "
    "text. Who goes by kinds would divide the attention among all of them, and you would take that for a loss.",
)
def more_of_the_kind(model):
    def change(repeat, similar, moved, unrelated):
        extra = next(w for w in KINDS[KIND_OF[repeat[-1]]] if w not in repeat + similar)
        return tuple([extra, *text] for text in (repeat, similar, moved, unrelated))

    return with_trials(model, change)


@wrong(
    "what_a_repeat_goes_by",
    "Your texts are longer than 30 words. What is not found in them may be lost by their length, and not by "
    "what you have changed.",
)
def long_texts(model):
    def change(*texts):
        last = [text[-1] for text in texts]
        extra = [w for w in KIND_OF if KIND_OF[w] not in {KIND_OF[x] for x in last} and w not in texts[0]][:20]
        return tuple([*extra, *text] for text in texts)

    return with_trials(model, change)


@wrong(
    "what_a_repeat_goes_by",
    "Your 'moved' texts have the other words in another order as well: two things have changed at once.",
)
def shuffled(model):
    def change(repeat, similar, moved, unrelated):
        at = repeat.index(repeat[-1])
        rest = repeat[:at] + repeat[at + 2 : -1]
        return repeat, similar, [*rest[::-1], *repeat[at : at + 2], repeat[-1]], unrelated

    return with_trials(model, change)


@wrong(
    "what_a_repeat_goes_by",
    "In your 'moved' texts the pair stands where it stood, or next to it. Who counts words back finds it there, too.",
)
def next_door(model):
    def change(repeat, similar, moved, unrelated):
        at = repeat.index(repeat[-1])
        rest = repeat[:at] + repeat[at + 2 :]
        to = at + 1 if at + 2 < len(rest) else at - 1
        return repeat, similar, [*rest[:to], *repeat[at : at + 2], *rest[to:]], unrelated

    return with_trials(model, change)


@wrong(
    "what_a_repeat_goes_by",
    "Your baseline ends in a word whose kind is in the text: who goes by kinds finds something there, and what you "
    "subtract is no longer nothing.",
)
def related_baseline(model):
    def change(repeat, similar, moved, unrelated):
        other = next(
            w for x in repeat[:-1] if KIND_OF[x] != KIND_OF[repeat[-1]] for w in KINDS[KIND_OF[x]] if w not in repeat
        )
        return repeat, similar, moved, [*unrelated[:-1], other]

    return with_trials(model, change)


@wrong(
    "what_a_repeat_goes_by",
    "You have too few trials: an interval from so few says little.",
)
def few_trials(model):
    return changed(model, trials=our_design(model)["trials"][:6])


@wrong(
    "what_a_repeat_goes_by",
    "Your measure does not depend on the answer: asked for another word it says the same. The most that the heads give "
    "to any word, for instance, is large whenever they look at something, whatever it is.",
)
def most_to_any_word(model):
    def measure(model, text, answer):
        return attention(model, text)[:, -1].mean(0).max().item()

    return changed(model, measure=measure)


@wrong(
    "what_a_repeat_goes_by",
    "Your measure reads one place too early: it is large for the word behind the answer. The tokens begin with <bos>, "
    "so that word i of the text, counted from 0, stands at position i + 1.",
)
def forgets_bos(model):
    def measure(model, text, answer):
        return attention(model, text)[:, -1, place_of(answer, text) - 1].mean().item()

    return changed(model, measure=measure)


@wrong(
    "what_a_repeat_goes_by",
    "Your measure does not depend on the last word, so it does not read the last position. Every earlier one has not "
    "seen whether the word comes again.",
)
def before_the_last_word(model):
    def measure(model, text, answer):
        return attention(model, text)[:, -2, place_of(answer, text)].mean().item()

    return changed(model, measure=measure)


@wrong(
    "what_a_repeat_goes_by",
    "You watch heads that do not look for repeats: what they give to the answer is no larger where its word comes "
    "again. The question is about the heads of layer 2.",
)
def other_heads(model):
    def measure(model, text, answer):
        at, given = place_of(answer, text), attention(model, text, layer=0)[:, -1].mean(0)
        return (given[at] - 0.5 * given[at + 1]).item()

    return changed(model, measure=measure)


@wrong(
    "what_a_repeat_goes_by",
    "You report the measure itself, without subtracting that of 'unrelated'. A word is given some attention, or some "
    "probability, also where nothing is repeated.",
)
def nothing_subtracted(model):
    def measure(model, text, answer):
        with torch.no_grad():
            return model(model.to_tokens(text))[0, -1].log_softmax(-1)[token_id(answer)].item()

    return changed(model, baseline=False, measure=measure)


@wrong(
    "what_a_repeat_goes_by",
    "Your half-widths are the trials' standard deviations: they tell how much trials differ, not how well the mean is "
    "known.",
)
def standard_deviations(model):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), values.std().item()

    return changed(model, interval=spread)


@wrong(
    "what_a_repeat_goes_by",
    "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.",
)
def standard_errors(model):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (values.std() / len(values) ** 0.5).item()

    return changed(model, interval=spread)


@wrong(
    "what_a_repeat_goes_by",
    "You decide for kinds. For kinds the answer would have to be kept behind a similar word as well, and there it is "
    "lost: the interval of 'effect_similar' lies below half the mean of 'effect_repeat'.",
)
def decides_for_kinds(model):
    return our_design(model) | {"verdict": "kind"}


@right("what_a_repeat_goes_by")
def by_the_logit(model):
    def measure(model, text, answer):
        with torch.no_grad():
            return model(model.to_tokens(text))[0, -1, token_id(answer)].item()

    return changed(model, measure=measure)


@right("what_a_repeat_goes_by")
def names_among_things(model):
    """Other texts: one name among things and adjectives, twelve trials, and the best head of the layer."""
    rng, trials = random.Random(4), []
    things = rng.sample(sorted(KINDS["thing"]), 24)
    for i in range(12):
        name, similar = rng.sample(KINDS["name"], 2)
        words = rng.sample([x for x in (*KINDS["thing"], *KINDS["adjective"]) if x != things[i]], 10)
        pair, last = [name, things[i]], rng.choice(KINDS["city"])
        near, far = [*words[:8], *pair, *words[8:]], [*words[:2], *pair, *words[2:]]
        texts = [*near, name], [*near, similar], [*far, name], [*near, last]
        trials.append((*map(" ".join, texts), things[i]))

    def measure(model, text, answer):
        return attention(model, text)[3, -1, place_of(answer, text)].item()

    return changed(model, trials=trials, measure=measure)
