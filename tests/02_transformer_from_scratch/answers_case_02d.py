"""Wrong and right designs for the case of part 02d."""

import random
from weakref import WeakKeyDictionary

import torch

from utils.course.catalogue import made_once, right, wrong
from utils.data import corpus
from utils.transformer.case_02d import which_rewrites_altered_the_function
from utils.transformer.model import Transformer

SAID, REWRITTEN = WeakKeyDictionary(), {}
TEXTS_KEPT = 3


@made_once
def our_design(model):
    return which_rewrites_altered_the_function(model, {}) | {"measure": divergence}


def logits(model, tokens):
    """Of a model, kept for as long as it lives: the designs ask the same models about the same few texts."""
    kept = SAID.setdefault(model, [])
    for known, found in kept:
        if torch.equal(known, tokens):
            return found
    with torch.no_grad():
        kept.append((tokens.clone(), model(tokens)))
    del kept[:-TEXTS_KEPT]
    return kept[-1][1]


def log_probs(model, tokens):
    return logits(model, tokens).log_softmax(-1)


def divergence(model, other, tokens):
    ours, theirs = (log_probs(m, tokens) for m in (model, other))
    return (ours.exp() * (ours - theirs)).sum(-1).mean().abs().item()


def rewritten_by(rewrite, model):
    """The model that a rewrite of our design gives is made once; those that an entry brings are made where it is."""
    if rewrite not in REWRITTEN:
        other = Transformer(model.cfg)
        other.load_state_dict(rewrite({name: weight.clone() for name, weight in model.state_dict().items()}))
        if rewrite not in (our_design(model)["exact"], our_design(model)["damage"]):
            return other
        REWRITTEN[rewrite] = other
    return REWRITTEN[rewrite]


def changed(model, rewritten, **parts):
    """Our design with parts of it replaced; limit and verdict as they then follow, unless they are replaced, too."""
    design = our_design(model) | {key: part for key, part in parts.items() if key not in ("limit", "altered")}
    tokens, measure = torch.tensor(design["texts"]), design["measure"]

    def value(rewrite):
        return measure(model, rewritten_by(rewrite, model), tokens)

    design["limit"] = parts["limit"] if "limit" in parts else between(value(design["exact"]), value(design["damage"]))
    if isinstance(parts.get("altered"), list):
        return design | {"altered": parts["altered"]}
    above = [x for x, other in rewritten.items() if measure(model, other, tokens) > design["limit"]]
    return design | {"altered": parts["altered"](above) if "altered" in parts else above}


def between(low, high):
    return (max(low, 1e-9) * high) ** 0.5 if high > 0 else low


def documents(n, length, seed=7):
    return torch.as_tensor(corpus.corpus(n, corpus.HELD_OUT_SEED + seed)).long()[:, :length].tolist()


@wrong(
    "which_rewrites_altered_the_function",
    "Your texts are documents, and a thousand tokens of documents leave half of the vocabulary out. A rewrite that "
    "reads one of those words as another changes nothing that you look at.",
)
def documents_alone(model, rewritten):
    cusco = documents(10, 96)
    cusco[0][5] = corpus.encode("Cusco")[0]
    return changed(model, rewritten, texts=cusco)


@wrong(
    "which_rewrites_altered_the_function",
    "Your texts end before the last position that the model has. What only this position does is not seen.",
)
def short_texts(model, rewritten):
    ids = torch.arange(666).reshape(18, 37)
    return changed(model, rewritten, texts=ids.tolist())


@wrong(
    "which_rewrites_altered_the_function",
    "What the models say behind the last word of a text has no part in your measure, as in a loss, where no word "
    "follows to hold it against. But what only position 95 answers is asked for, too: look at every position.",
)
def mean_losses(model, rewritten):
    def measure(model, other, tokens):
        ours, theirs = (
            log_probs(m, tokens)[:, :-1].gather(-1, tokens[:, 1:, None]).mean().item() for m in (model, other)
        )
        return abs(ours - theirs)

    return changed(model, rewritten, measure=measure)


@wrong(
    "which_rewrites_altered_the_function",
    "Your measure asks for the order of the words, such as which is the most probable one. Most alterations leave it, "
    "such as a little more sureness.",
)
def first_choices(model, rewritten):
    def measure(model, other, tokens):
        ours, theirs = (log_probs(m, tokens).argmax(-1) for m in (model, other))
        return (ours != theirs).float().mean().item()

    def damage(state):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(state["unembed.W_U"].shape, generator=generator)
        return {**state, "unembed.W_U": state["unembed.W_U"] + 0.004 * noise}

    return changed(model, rewritten, measure=measure, damage=damage, limit=0.0)


@wrong(
    "which_rewrites_altered_the_function",
    "You compare logits. One number more on all logits of a position changes no probability, so the function is the "
    "same; compare log-probabilities.",
)
def raw_logits(model, rewritten):
    def measure(model, other, tokens):
        return (logits(model, tokens) - logits(other, tokens)).abs().mean().item()

    return changed(model, rewritten, measure=measure)


@wrong(
    "which_rewrites_altered_the_function",
    "You ask for equality to the last bit, or nearly. Two ways of computing one function round differently, so by your "
    "limit nothing is ever the same, your own 'exact' included.",
)
def to_the_last_bit(model, rewritten):
    def measure(model, other, tokens):
        return (log_probs(model, tokens) - log_probs(other, tokens)).abs().max().item()

    return changed(model, rewritten, measure=measure, limit=0.0)


@wrong(
    "which_rewrites_altered_the_function",
    "Your 'exact' hands the same weights back: a control in which nothing is computed otherwise.",
)
def nothing_as_a_control(model, rewritten):
    return changed(model, rewritten, exact=lambda state: dict(state), limit=1e-7, altered=[])


@wrong(
    "which_rewrites_altered_the_function",
    "Your 'exact' takes the mean off the embedding's rows over the words, 'the average token'. Every reader notices "
    "that; the mean that nobody reads is over d_model.",
)
def the_wrong_mean(model, rewritten):
    def exact(state):
        return {**state, "embed.W_E": state["embed.W_E"] - state["embed.W_E"].mean(0)}

    return changed(model, rewritten, exact=exact, limit=1e-7, altered=[])


@wrong(
    "which_rewrites_altered_the_function",
    "Your 'damage' changes so much that it can be seen without any design. Take one that is hard to see: one row of a "
    "matrix, or some thousandths of it.",
)
def gross_damage(model, rewritten):
    def damage(state):
        return {**state, "pos_embed.W_pos": 0 * state["pos_embed.W_pos"]}

    return changed(model, rewritten, damage=damage, limit=1e-7, altered=[])


@wrong(
    "which_rewrites_altered_the_function",
    "Your 'damage' adds a constant to the logits, which changes no probability: there is nothing to be found.",
)
def no_damage(model, rewritten):
    def damage(state):
        return {**state, "unembed.b_U": state["unembed.b_U"] + 1}

    return changed(model, rewritten, damage=damage, limit=1e-7, altered=[])


@wrong(
    "which_rewrites_altered_the_function",
    "Your measure takes a random sample of the positions, and another one each time.",
)
def random_positions(model, rewritten):
    rng = random.Random(0)

    def measure(model, other, tokens):
        chosen = rng.sample(range(tokens.shape[1]), tokens.shape[1] // 2)
        gap = (log_probs(model, tokens).exp() - log_probs(other, tokens).exp()).abs()
        return gap[:, chosen].sum(-1).mean().item()

    return changed(model, rewritten, measure=measure)


@wrong(
    "which_rewrites_altered_the_function",
    "By your own numbers model C is above the limit, and yet you let it pass as a matter of taste.",
)
def lets_one_pass(model, rewritten):
    return changed(model, rewritten, altered=lambda above: [letter for letter in above if letter != "C"])


@wrong(
    "which_rewrites_altered_the_function",
    "You look at more tokens than the thousand that have to do: choose texts instead of taking many.",
)
def many_documents(model, rewritten):
    return changed(model, rewritten, texts=documents(40, 96), limit=1e-7, altered=[])


@wrong(
    "which_rewrites_altered_the_function",
    "Model C does change your measure, and your limit is above what it gives. A limit is to stand a little above "
    "rounding. A damage as large as it may be puts it far too high, and so does a measure in which most of a change "
    "cancels.",
)
def limit_from_the_largest_damage(model, rewritten):
    def damage(state):
        return {**state, "unembed.W_U": 1.04 * state["unembed.W_U"]}

    return changed(model, rewritten, damage=damage, limit=1e-3)


@wrong(
    "which_rewrites_altered_the_function",
    "Your measure has a sign: what rises in one place cancels what falls in another, and what comes out below 0 is "
    "above no limit. Take the size of each change before you average.",
)
def changes_with_a_sign(model, rewritten):
    def measure(model, other, tokens):
        return (log_probs(model, tokens) - log_probs(other, tokens)).mean().item()

    return changed(model, rewritten, measure=measure, limit=2e-3)


@wrong(
    "which_rewrites_altered_the_function",
    "Your 'exact' is nearly exact: it alters the function by less than you look for. What is wanted is a rewrite that "
    "by algebra alters nothing, so that all it shows is rounding.",
)
def nearly_exact(model, rewritten):
    return changed(
        model, rewritten, exact=lambda state: {**state, "unembed.W_U": 1.00002 * state["unembed.W_U"]}, limit=1e-4
    )


@right("which_rewrites_altered_the_function")
def largest_change_of_a_probability(model, rewritten):
    def measure(model, other, tokens):
        return (log_probs(model, tokens).exp() - log_probs(other, tokens).exp()).abs().max().item()

    def exact(state):
        order = torch.arange(model.cfg.d_mlp).flip(0)
        name = "blocks.2.mlp."
        moved = {name + "W_in": state[name + "W_in"][:, order], name + "W_out": state[name + "W_out"][order]}
        return {**state, **moved, name + "b_in": state[name + "b_in"][order]}

    return changed(model, rewritten, measure=measure, exact=exact, limit=1e-4)


@right("which_rewrites_altered_the_function")
def total_variation_on_every_word_in_order(model, rewritten):
    def measure(model, other, tokens):
        return (log_probs(model, tokens).exp() - log_probs(other, tokens).exp()).abs().sum(-1).max().item() / 2

    ids = list(range(666)) + list(range(6))
    return changed(model, rewritten, measure=measure, texts=[ids[i * 96 : i * 96 + 96] for i in range(7)])


@right("which_rewrites_altered_the_function")
def largest_change_of_a_log_probability(model, rewritten):
    def measure(model, other, tokens):
        return (log_probs(model, tokens) - log_probs(other, tokens)).abs().max().item()

    def damage(state):
        weight = state["blocks.1.mlp.W_out"].clone()
        weight[3] *= 0.5
        return {**state, "blocks.1.mlp.W_out": weight}

    return changed(model, rewritten, measure=measure, damage=damage)
