"""Wrong and right designs for the case of part 05b."""

from utils.circuits.case_05b import what_the_signal_says
from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data.corpus import words
from utils.data.prompts import ioi_prompts, token_id
from utils.data.world import NAMES, THINGS
from utils.patching.case_04b import gift_of, swap_heads

LISTS = ("nothing", "place", "name", "both")


@made_once
def our_design(model):
    return what_the_signal_says(model)


# A wrong design that is refused before its numbers are read keeps the numbers of ours.


def effects(model, measure, pairs, head=(1, 3)):
    prompts, donors = zip(*pairs, strict=True)
    found = []
    for text, *runs in zip(
        prompts, swap_heads(model, prompts, donors, []), swap_heads(model, prompts, donors, [head]), strict=True
    ):
        gift = gift_of(text)
        own, swapped = (measure(row, gift.receiver, gift.giver) for row in runs)
        found.append(own - swapped)
    return found


def verdict_of(design):
    quarter = design["effect_both"][0] / 4
    counts = {name: design[f"effect_{name}"][0] > quarter for name in ("nothing", "name", "place")}
    if counts["nothing"] or not (counts["name"] or counts["place"]):
        return "undecided"
    return " and ".join(name for name in ("name", "place") if counts[name])


def changed(model, head=(1, 3), **parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    design = our_design(model) | parts
    for name in LISTS:
        design[f"effect_{name}"] = estimate(effects(model, design["measure"], design[name], head))
    return design | {"verdict": verdict_of(design)}


def with_donors(model, name, change):
    """Our design with other donors in one list, made from each prompt's words, its receiver and its giver."""
    design, pairs = our_design(model), []
    for text, _ in design[name]:
        gift = gift_of(text)
        pairs.append((text, " ".join(change(words(text), gift.receiver, gift.giver))))
    return design | {name: pairs}


def strangers(*people):
    return [name for name in NAMES if name not in people][:2]


def places_of(said, *people):
    return [i for i, word in enumerate(said) if word in people]


@wrong(
    "what_the_signal_says",
    "The donors of your 'place' exchange the two names everywhere, so that the other one gives. Then the giver has "
    "another "
    "name and the same place as before: 'name' has changed, and 'place' has not.",
)
def names_exchanged(model):
    return with_donors(model, "place", lambda said, io, s: [{io: s, s: io}.get(word, word) for word in said])


@wrong(
    "what_the_signal_says",
    "The donors of your 'name' let the other one of the same two people give. With his name his place has changed as"
    " well: "
    "that is 'both'. Take two new people.",
)
def the_other_gives(model):
    def change(said, io, s):
        said[places_of(said, s)[-1]] = io
        return said

    return with_donors(model, "name", change)


@wrong(
    "what_the_signal_says",
    "The donors of your 'name' have a new receiver, and the giver stays: neither his name nor his place has changed.",
)
def a_new_receiver(model):
    return with_donors(
        model, "name", lambda said, io, s: [strangers(io, s)[0] if word == io else word for word in said]
    )


@wrong(
    "what_the_signal_says",
    "The donors of your 'name' have a new giver beside the prompt's own receiver. His name is an answer there and "
    "here: two "
    "new people are asked for, so that the donor says nothing of either.",
)
def a_new_giver(model):
    return with_donors(model, "name", lambda said, io, s: [strangers(io, s)[0] if word == s else word for word in said])


@wrong(
    "what_the_signal_says",
    "The donors of your 'nothing' are the prompts themselves: what is swapped in is what was there, and no "
    "difference could "
    "have shown. Let other words differ.",
)
def the_same_text(model):
    return with_donors(model, "nothing", lambda said, io, s: said)


@wrong(
    "what_the_signal_says",
    "The donors of your 'both' take two new people in the other order. The giver's name and place have changed, but "
    "the "
    "donor does not speak of the prompt's two any more: let the other of the two give.",
)
def two_strangers_turned(model):
    def change(said, io, s):
        first, second = places_of(said, io, s)[:2]
        someone, another = strangers(io, s)
        gave = places_of(said, s)[-1]
        mine = first if said[first] == s else second
        theirs = second if mine == first else first
        said[mine], said[theirs], said[gave] = another, someone, someone
        return said

    return with_donors(model, "both", change)


@wrong(
    "what_the_signal_says",
    "All your pairs are built alike: one sentence with other names. What a head does in one sentence it does there "
    "with all "
    "names; the interval looks narrower than it is.",
)
def one_sentence(model):
    pairs = []
    for i in range(12):
        a, b, c, d = NAMES[4 * i : 4 * i + 4]
        s = (a, b)[i % 2]
        text = f"When {a} and {b} went to the park , {s} gave a ball to"
        pairs.append((text, f"When {c} and {d} went to the park , {(c, d)[i % 2]} gave a ball to"))
    return our_design(model) | {"name": pairs}


@wrong(
    "what_the_signal_says",
    "In all your prompts the receiver is named first: the giver has one place only, and what you say of places is "
    "said of "
    "that one.",
)
def one_order(model):
    design = our_design(model)
    return design | {"place": [pair for pair in more(model, "place") if gift_of(pair[0]).receiver_first][:12]}


def more(model, name):
    """More pairs of the list "place", from other prompts, no two built alike."""
    pairs = []
    for prompt in {prompt.unit: prompt for prompt in ioi_prompts(600, 8)}.values():
        said = words(prompt.text)
        turned = list(said)
        first, second = places_of(said, prompt.answer, prompt.foil)[:2]
        turned[first], turned[second] = said[second], said[first]
        pairs.append((" ".join(said), " ".join(turned)))
    return pairs


@wrong(
    "what_the_signal_says",
    "Your control holds heads that the answer hangs on as well: the later heads bring the names.",
)
def later_heads_as_control(model):
    return our_design(model) | {"control_heads": [(layer, head) for layer in (2, 3) for head in range(4)]}


@wrong(
    "what_the_signal_says",
    "You swapped another head than 1.3: your effects are nearly 0 where the design gives large ones.",
)
def another_head(model):
    return changed(model, head=(1, 2)) | {"verdict": "undecided"}


@wrong(
    "what_the_signal_says",
    "Your measure takes the giver's lead over the receiver. Behind a prompt as it is, the receiver is ahead, and the"
    " measure "
    "should be larger for that.",
)
def the_givers_lead(model):
    return changed(model, measure=lambda x, receiver, giver: (x[token_id(giver)] - x[token_id(receiver)]).item())


@wrong(
    "what_the_signal_says",
    "Your measure reads the giver's logit alone. The question is who is ahead: what the receiver's logit does has to "
    "count as well.",
)
def the_giver_alone(model):
    return changed(model, measure=lambda x, receiver, giver: -x[token_id(giver)].item())


@wrong(
    "what_the_signal_says",
    "Your measure reads the receiver's logit alone. The question is who is ahead: what the giver's logit does has to "
    "count as well.",
)
def the_receiver_alone(model):
    return changed(model, measure=lambda x, receiver, giver: x[token_id(receiver)].item())


@wrong(
    "what_the_signal_says",
    "You call it a place because swapping the giver does much. In 'both' his name changes, too; the lists that "
    "change one of "
    "the two decide.",
)
def place_by_habit(model):
    return our_design(model) | {"verdict": "place"}


@right("what_the_signal_says")
def by_probability(model):
    return changed(
        model,
        measure=lambda x, receiver, giver: (x.softmax(-1)[token_id(receiver)] - x.softmax(-1)[token_id(giver)]).item(),
    )


@right("what_the_signal_says")
def other_prompts_and_things(model):
    lists = {name: [] for name in LISTS}
    for prompt in list({prompt.unit: prompt for prompt in ioi_prompts(500, 21)}.values())[:16]:
        said, io, s = words(prompt.text), prompt.answer, prompt.foil
        thing = next(i for i, word in enumerate(said) if word in THINGS)
        first, second, gave = sorted((*places_of(said, io)[:1], *places_of(said, s)))
        c, d = NAMES[70], NAMES[150]
        if {c, d} & {io, s}:
            continue
        new = {
            "nothing": {thing: next(word for word in THINGS if word != said[thing])},
            "place": {first: said[second], second: said[first]},
            "name": {i: {io: c, s: d}[said[i]] for i in (first, second, gave)},
            "both": {gave: io},
        }
        for name, change in new.items():
            lists[name].append((prompt.text, " ".join(change.get(i, word) for i, word in enumerate(said))))
    design = changed(model, **lists, control_heads=[[0, 0], [0, 3], [1, 0], [1, 1]])
    return design
