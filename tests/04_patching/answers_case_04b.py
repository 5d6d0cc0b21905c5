"""Wrong and right designs for the case of part 04b."""

import torch

from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data.corpus import words
from utils.data.prompts import ioi_prompts, token_id
from utils.data.world import NAMES, THINGS
from utils.patching.case_04b import gift_of, swap_heads, who_brings_the_name

HEAD = [(1, 3)]
LATER = [(layer, head) for layer in (2, 3) for head in range(4)]
EFFECTS = {
    "head_giver": ("other_giver", HEAD),
    "head_receiver": ("other_receiver", HEAD),
    "later_giver": ("other_giver", LATER),
    "later_receiver": ("other_receiver", LATER),
}


@made_once
def our_design(model):
    return who_brings_the_name(model)


# A wrong design that is refused before its numbers are read keeps the numbers of ours.


def measured(model, measure, pairs, heads, run=swap_heads):
    """Each pair's share of the way."""
    prompts, donors = zip(*pairs, strict=True)
    runs = swap_heads(model, prompts, prompts, []), run(model, prompts, donors, heads)
    shares = []
    for p, d, *logits in zip(prompts, donors, *runs, swap_heads(model, donors, donors, []), strict=True):
        own, swapped, whole = (measure(x, gift_of(d).receiver, gift_of(p).receiver) for x in logits)
        shares.append((swapped - own) / (whole - own))
    return shares


def verdict_of(design):
    comes = [design[key][0] > 0.5 for key in EFFECTS if abs(design[key][0] - 0.5) > design[key][1]]
    readings = {"chain": [1, 0, 1, 1], "division": [1, 0, 0, 1], "disturbance": [0, 0, 0, 0]}
    return next((reading for reading, predicted in readings.items() if predicted == comes), "undecided")


def changed(model, **parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    design = our_design(model) | parts
    for key, (name, heads) in EFFECTS.items():
        design[key] = estimate(measured(model, design["measure"], design[name], heads))
    return design | {"verdict": verdict_of(design)}


def probability(logits, answer, own):
    return logits.softmax(-1)[token_id(answer)].item()


def other_giver(prompt):
    before, after = prompt.text.rsplit(prompt.foil, 1)
    return prompt.text, before + prompt.answer + after


def other_receiver(prompt, away=0):
    free = [name for name in NAMES if name not in (prompt.answer, prompt.foil)]
    return prompt.text, prompt.text.replace(prompt.answer, free[away % len(free)])


def one_for_each_template(prompts, n=20):
    return list({prompt.unit: prompt for prompt in prompts}.values())[:n]


@wrong(
    "who_brings_the_name",
    "Your donors are scenes about other people altogether: the giver, the receiver and the sentence are others. One "
    "word should differ, or nobody knows which of the differences a head carried over.",
)
def another_scene(model):
    prompts = one_for_each_template(ioi_prompts(300, 3), 24)
    pairs = [(p, d) for p in prompts for d in prompts if not {p.answer, p.foil} & {d.answer, d.foil}]
    alike = [(p.text, d.text) for p, d in pairs if p.at == d.at and p.kind[0] == d.kind[0]]
    return our_design(model) | {"other_giver": alike[:10]}


def with_donors(model, key, change):
    """Our design with other donors in one list, each made from its prompt's words, giver and receiver."""
    design = our_design(model)
    pairs = [(prompt, " ".join(change(words(prompt), *gift_of(prompt)[:2]))) for prompt, _ in design[key]]
    return design | {key: pairs}


def renamed(said, names):
    return [names.get(word, word) for word in said]


@wrong(
    "who_brings_the_name",
    "Your donors are the prompts with both names exchanged for those of other people: giver and receiver change at "
    "once. One of the two should stay, or nobody knows which of them a head carried over.",
)
def two_new_people(model):
    def change(said, giver, receiver):
        someone, another = [name for name in NAMES if name not in (giver, receiver)][:2]
        return renamed(said, {giver: someone, receiver: another})

    return with_donors(model, "other_giver", change)


@wrong(
    "who_brings_the_name",
    "Your donors have the prompts' own two names in other places, and not only where it is said who gives. Leave the "
    "opening as it is: exchanged there, the names are met in another order, and a head may go by that.",
)
def opening_turned(model):
    def change(said, giver, receiver):
        first, second = [i for i, word in enumerate(said) if word in (giver, receiver)][:2]
        said[first], said[second] = said[second], said[first]
        return said

    return with_donors(model, "other_giver", change)


@wrong(
    "who_brings_the_name",
    "In your donors another person gives, who is not in the prompt, and that takes two words: the giver is said twice. "
    "The two people stay in 'other_giver' and only change places in who gives; in 'other_receiver' the giver stays.",
)
def new_giver(model):
    def change(said, giver, receiver):
        return renamed(said, {giver: next(x for x in NAMES if x not in (giver, receiver))})

    return with_donors(model, "other_receiver", change)


@wrong(
    "who_brings_the_name",
    "Between your prompts and donors more differs than names: a place, a thing or another word has changed as well. A "
    "head that carried that over would look like one that carries who gives, or who gets.",
)
def another_thing(model):
    def change(said, giver, receiver):
        said[max(i for i, word in enumerate(said) if word in THINGS)] = "letter" if "book" in said else "book"
        return renamed(said, {receiver: next(x for x in NAMES if x not in (giver, receiver))})

    return with_donors(model, "other_receiver", change)


@wrong(
    "who_brings_the_name",
    "All your prompts are one sentence with other names. What a head does in it may be a habit of this sentence, and "
    "many names do not make many units.",
)
def one_sentence(model):
    prompts = [p for p in ioi_prompts(800, 3) if p.unit == "0 0"]
    return our_design(model) | {"other_giver": [other_giver(p) for p in prompts[:12]]}


@wrong(
    "who_brings_the_name",
    "Your prompts have one and the same order: the receiver before the giver, or the giver before the receiver. A head "
    "that goes by the order, like 2.2, which fetches the first of two names, could not be told from one that knows who "
    "gives.",
)
def one_order(model):
    prompts = one_for_each_template([p for p in ioi_prompts(300, 3) if p.kind[0] == "ABBA"])
    return our_design(model) | {"other_giver": list(map(other_giver, prompts))}


@wrong(
    "who_brings_the_name",
    "Only one or two of your prompts have the other order of names. Whatever a head does in the one order decides your "
    "mean, and those few can't tell a head that goes by the order from one that knows who gives.",
)
def nearly_one_order(model):
    prompts = one_for_each_template(ioi_prompts(300, 3), 100)
    orders = [[other_giver(p) for p in prompts if p.kind[0] == order] for order in ("ABBA", "BABA")]
    return our_design(model) | {"other_giver": orders[0][:10] + orders[1][:2]}


@wrong(
    "who_brings_the_name",
    "Your measure is how little the prompt's own answer is said. It rises just as well when something else is said, "
    "and not the donor's answer, or nothing in particular.",
)
def own_answer_going(model):
    return our_design(model) | {"measure": lambda logits, answer, own: -probability(logits, own, answer)}


@wrong(
    "who_brings_the_name",
    "Your measure has gone most of its way before the donor's answer is said: so does the logarithm of a probability, "
    "for which from one in a million to one in twenty is most of the way. A share above one half then says little.",
)
def log_probability(model):
    measure = lambda logits, answer, own: logits.log_softmax(-1)[token_id(answer)].item()  # noqa: E731
    return our_design(model) | {"measure": measure}


@wrong(
    "who_brings_the_name",
    "Among your control heads are heads of layer 2, which are under suspicion themselves.",
)
def suspects_for_control(model):
    return our_design(model) | {"control_heads": [(2, head) for head in range(4)]}


@wrong(
    "who_brings_the_name",
    "You set the heads' outputs to zero in place of the donor's. That takes something away and puts nothing in, so it "
    "can't tell what the output would have carried.",
)
def zero_for_donor(model):
    def zeroed(model, texts, donors, heads):
        def hook(z, hook):
            for layer, head in heads:
                if hook.layer() == layer:
                    z[:, -1, head] = 0
            return z

        names = [f"blocks.{layer}.attn.hook_z" for layer in {layer for layer, _ in heads}]
        with torch.no_grad():
            return torch.cat(
                [
                    model.run_with_hooks(model.to_tokens(text), fwd_hooks=[(name, hook) for name in names])[:, -1]
                    for text in texts
                ]
            )

    design = our_design(model)
    shares = measured(model, design["measure"], design["other_giver"], HEAD, zeroed)
    return design | {"head_giver": estimate(shares)}


@wrong(
    "who_brings_the_name",
    "Your verdict is the chain, and in your own numbers the later heads' output from a scene with the other giver does "
    "not bring the other answer.",
)
def the_expected_story(model):
    return our_design(model) | {"verdict": "chain"}


@wrong(
    "who_brings_the_name",
    "The half-width that you hand in is the standard deviation over pairs: how much they differ, and not how well "
    "their mean is known. `estimate` gives the interval.",
)
def spread_in_place_of_interval(model):
    design = our_design(model)
    shares = torch.tensor(measured(model, design["measure"], design["other_giver"], LATER))
    return design | {"later_giver": (shares.mean().item(), shares.std().item())}


@right("who_brings_the_name")
def by_logit_difference(model):
    """Other prompts, and how far the donor's answer is ahead of the prompt's own."""
    prompts = one_for_each_template(ioi_prompts(300, 4), 30)
    pairs = [other_receiver(prompt, i) for i, prompt in enumerate(prompts)]
    said = swap_heads(model, [donor for _, donor in pairs], [donor for _, donor in pairs], []).argmax(-1).tolist()
    return changed(
        model,
        measure=lambda logits, answer, own: logits[token_id(answer)] - logits[token_id(own)],
        other_giver=list(map(other_giver, prompts)),
        other_receiver=[
            list(pair) for pair, word in zip(pairs, said, strict=True) if word == token_id(gift_of(pair[1]).receiver)
        ],
        control_heads=[[1, 0], [1, 1], [1, 2], [0, 3]],
    )


@right("who_brings_the_name")
def between_the_two(model):
    """Held-out combinations of opening and gift; the answer's share of what the two get together."""

    def between(logits, answer, own):
        return torch.softmax(logits[[token_id(answer), token_id(own)]], 0)[0]

    unseen = one_for_each_template(ioi_prompts(200, 5, held_out_templates=True), 10)
    prompts = unseen + one_for_each_template(ioi_prompts(200, 6), 14)
    lists = {"other_giver": list(map(other_giver, prompts)), "other_receiver": list(map(other_receiver, prompts))}
    return changed(model, measure=between, **lists)
