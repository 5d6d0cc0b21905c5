"""Wrong and right designs for the case of part 08c."""

from statistics import stdev

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.data.world import BUILDERS, CITIES, DAYS, LANGUAGE_OF_COUNTRY, NAMES, PLACES

ENDS = ("in", "likes", "visited", "and")
BEGINNINGS = [f"{who} {end}" for who in ("Mary worked", "The baker", "Tom said", "A nurse") for end in ENDS]
OTHERS = [*NAMES[:6], *tuple(LANGUAGE_OF_COUNTRY)[:6], *BUILDERS[:6], *DAYS[:6], *PLACES[:6]]
VERDICTS = {
    (False, False): "as labelled", (True, False): "too narrow", (False, True): "too wide",
    (True, True): "something else",
}  # fmt: skip


def designed(latent, *, beginnings=BEGINNINGS, cities=CITIES, others=OTHERS, interval=estimate, verdict=None):
    def shares(endings, on):
        return [((latent([f"{t} {w}" for w in endings]) > 0) == on).float().mean().item() for t in beginnings]

    negatives, positives = interval(shares(cities, False)), interval(shares(others, True))
    large = negatives[0] > 0.05, positives[0] > 0.05
    return {
        "beginnings": list(beginnings), "cities": list(cities), "others": list(others), "false_negatives": negatives,
        "false_positives": positives, "verdict": VERDICTS[large] if verdict is None else verdict(*large),
    }  # fmt: skip


@wrong(
    "is_it_what_it_says",
    "All of your beginnings end in the same word, as the strongest examples do. What happens elsewhere they can't "
    "tell.",
)
def all_behind_in(latent):
    who = [*NAMES[:14]]
    return designed(latent, beginnings=[f"{name} worked in" for name in who])


@wrong(
    "is_it_what_it_says",
    "Your other words are people only. A latent that takes countries or builders for cities passes your test.",
)
def people_only(latent):
    return designed(latent, others=NAMES[:30])


@wrong(
    "is_it_what_it_says",
    "You look at false negatives alone: whatever the latent does at other words, your verdict stays the same.",
)
def negatives_alone(latent):
    return designed(latent, verdict=lambda negatives, positives: "too narrow" if negatives else "as labelled")


@wrong(
    "is_it_what_it_says",
    "You look at false positives alone: a latent that misses most cities is what its label says, by you.",
)
def positives_alone(latent):
    return designed(latent, verdict=lambda negatives, positives: "too wide" if positives else "as labelled")


@wrong(
    "is_it_what_it_says",
    "You believe the label, whatever your numbers say. It was written by somebody who had seen the strongest examples.",
)
def believes_the_label(latent):
    return designed(latent, verdict=lambda negatives, positives: "as labelled")


@wrong(
    "is_it_what_it_says",
    "You try four cities. A latent that is on at half of them, chosen at random, may be on at all of yours.",
)
def few_cities(latent):
    return designed(latent, cities=CITIES[:4])


@wrong(
    "is_it_what_it_says",
    "You have six beginnings: over so few an interval says little.",
)
def few_beginnings(latent):
    return designed(latent, beginnings=BEGINNINGS[:6])


@wrong(
    "is_it_what_it_says",
    "Your half-widths are standard deviations over beginnings: they don't get smaller with more of them.",
)
def standard_deviations(latent):
    return designed(latent, interval=lambda values: (sum(values) / len(values), stdev(values)))


@wrong(
    "is_it_what_it_says",
    "Your intervals are over texts, as if each were drawn by itself. Texts with one beginning go together: take a "
    "share for each beginning, and the interval over these.",
)
def over_texts(latent):
    def off(endings):
        return [float(a <= 0) for t in BEGINNINGS for a in latent([f"{t} {w}" for w in endings]).tolist()]

    return designed(latent) | {
        "false_negatives": estimate(off(CITIES)), "false_positives": estimate([1 - x for x in off(OTHERS)])
    }  # fmt: skip


@wrong(
    "is_it_what_it_says",
    "Your texts are not crossed: cities stand behind beginnings in 'in' only, and other words behind the rest. "
    "Whether the word or what stands before it decides can't be told so.",
)
def not_crossed(latent):
    behind_in = [t for t in BEGINNINGS if t.endswith(" in")]
    rest = [t for t in BEGINNINGS if not t.endswith(" in")]
    negatives = designed(latent, beginnings=behind_in)["false_negatives"]
    positives = designed(latent, beginnings=rest)["false_positives"]
    return designed(latent) | {
        "false_negatives": negatives, "false_positives": positives,
        "verdict": VERDICTS[negatives[0] > 0.05, positives[0] > 0.05],
    }  # fmt: skip


@wrong(
    "is_it_what_it_says",
    "Your false positives are a share of all texts, those with cities among them. Divide by the number of texts that "
    "end in other words.",
)
def share_of_all_texts(latent):
    design = designed(latent)
    scale = len(OTHERS) / (len(OTHERS) + len(CITIES))
    mean, width = design["false_positives"]
    mean, width = mean * scale, width * scale
    return design | {
        "false_positives": (mean, width), "verdict": VERDICTS[design["false_negatives"][0] > 0.05, mean > 0.05]
    }  # fmt: skip


@wrong(
    "is_it_what_it_says",
    "You call a share large where the lower end of its interval is above 0.05. By the rule its mean decides: a "
    "latent that is off behind a few beginnings only is too narrow.",
)
def by_lower_end(latent):
    design = designed(latent)
    large = [design[key][0] - design[key][1] > 0.05 for key in ("false_negatives", "false_positives")]
    return design | {"verdict": VERDICTS[tuple(large)]}


@wrong(
    "is_it_what_it_says",
    "Your two shares are exchanged: a false negative is a city at which the latent is off.",
)
def exchanged(latent):
    design = designed(latent)
    return design | {"false_negatives": design["false_positives"], "false_positives": design["false_negatives"]}


@wrong(
    "is_it_what_it_says",
    "You report the share of cities at which the latent is on, and a false negative is where it is off.",
)
def hits(latent):
    design = designed(latent)
    mean, width = design["false_negatives"]
    return design | {"false_negatives": (1 - mean, width)}


@wrong(
    "is_it_what_it_says",
    "None of your beginnings ends in 'in', where most cities stand.",
)
def never_behind_in(latent):
    beginnings = [
        f"{who} {end}" for who in ("Mary", "The baker", "Tom", "A nurse") for end in ("likes", "saw", "and", "of")
    ]
    return designed(latent, beginnings=beginnings)


@right("is_it_what_it_says")
def of_other_texts(latent):
    beginnings = [
        "Mary and Tom sat in", "The baker worked in", "The Castle is located in", "The letter is for", "The city is",
        "Mary likes", "The car is near", "Everyone knew", "The painter of", "Paul and", "On Monday Tom visited",
        "Then she saw", "Tom said :",
    ]  # fmt: skip
    return designed(latent, beginnings=beginnings, cities=CITIES[::-1][:18], others=OTHERS[::-1])


@right("is_it_what_it_says")
def a_loop_over_texts(latent):
    beginnings, others = BEGINNINGS[2:], OTHERS[:-3]
    off = [sum(latent([f"{t} {c}"]).item() <= 0 for c in CITIES) / len(CITIES) for t in beginnings]
    on = [sum(latent([f"{t} {w}"]).item() > 0 for w in others) / len(others) for t in beginnings]
    negatives, positives = estimate(off), estimate(on)
    return {
        "beginnings": beginnings, "cities": list(CITIES), "others": others, "false_negatives": negatives,
        "false_positives": positives, "verdict": VERDICTS[negatives[0] > 0.05, positives[0] > 0.05],
    }  # fmt: skip
