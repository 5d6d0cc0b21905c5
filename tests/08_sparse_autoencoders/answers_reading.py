"""Wrong and right answers for looking at latents."""

import html

import torch

from utils.course.catalogue import right, wrong
from utils.sae.dashboard import feature_dashboard as our_dashboard
from utils.sae.reading import Example, LabelScores, activation_levels


def examples(acts, n, before=8, after=4, per_document=1, *, order=None, keep=lambda a: a > 0, stop=1, cut=True):
    if n < 1 or per_document < 1:
        raise ValueError
    found, taken = [], {}
    places = acts.flatten().argsort(descending=True, stable=True) if order is None else order(acts)
    for place in places.tolist():
        d, p = divmod(place, acts.shape[1])
        if len(found) < n and keep(acts[d, p]) and taken.get(d, 0) < per_document:
            taken[d] = taken.get(d, 0) + 1
            window = (max(0, p - before), min(acts.shape[1], p + after + stop)) if cut else (p - before, p + after + 1)
            found.append(Example(d, p, *window, acts[d, p].item()))
    return found


@wrong(
    "max_activating_examples",
    "One document may fill your list. Twenty places in one text are one piece of evidence: count how many you "
    "have taken of each.",
)
def no_limit(acts, n, *, before=8, after=4, per_document=1):
    if per_document < 1:
        raise ValueError
    return examples(acts, n, before, after, 10**6)


@wrong(
    "max_activating_examples",
    "You take one of each document at most, whatever per_document says.",
)
def always_one(acts, n, *, before=8, after=4, per_document=1):
    if per_document < 1:
        raise ValueError
    return examples(acts, n, before, after, 1)


@wrong(
    "max_activating_examples",
    "Where there are too few places with an activation, you fill the list with places where the latent is off.",
)
def zeros_too(acts, n, *, before=8, after=4, per_document=1):
    return examples(acts, n, before, after, per_document, keep=lambda a: True)


@wrong(
    "max_activating_examples",
    "Your window ends one word too early: a stop is one behind the last word, so the place itself and `after` more.",
)
def short_window(acts, n, *, before=8, after=4, per_document=1):
    return examples(acts, n, before, after, per_document, stop=0)


@wrong(
    "max_activating_examples",
    "Your window goes beyond the ends of the document. A negative start, used as a slice, counts from the end.",
)
def beyond_the_ends(acts, n, *, before=8, after=4, per_document=1):
    return examples(acts, n, before, after, per_document, cut=False)


@wrong(
    "max_activating_examples",
    "Of equal activations you take the later document first. (Turning an ascending order round turns ties round, too.)",
)
def ties_backwards(acts, n, *, before=8, after=4, per_document=1):
    return examples(acts, n, before, after, per_document, order=lambda a: a.flatten().argsort(stable=True).flip(0))


@wrong(
    "max_activating_examples",
    "You take the n strongest places first and then throw out what is too much of a document. The next documents "
    "would have had their turn.",
)
def limit_afterwards(acts, n, *, before=8, after=4, per_document=1):
    if per_document < 1:
        raise ValueError
    kept, taken = [], {}
    for e in examples(acts, n, before, after, 10**6):
        taken[e.document] = taken.get(e.document, 0) + 1
        if taken[e.document] <= per_document:
            kept.append(e)
    return kept


@right("max_activating_examples")
def sorted_in_python(acts, n, *, before=8, after=4, per_document=1):
    if min(n, per_document) < 1:
        raise ValueError("at least 1")
    places = [(-a, d, p) for d, row in enumerate(acts.tolist()) for p, a in enumerate(row) if a > 0]
    found, of = [], [0] * len(acts)
    for a, d, p in sorted(places):
        if of[d] < per_document:
            of[d] += 1
            found.append(Example(d, p, max(p - before, 0), min(p + 1 + after, acts.shape[1]), -a))
    return found[:n]


@wrong(
    "activation_levels",
    "Your levels are equal steps of activation, and not equal numbers of places: nearly everything is then in the "
    "lowest.",
)
def equal_steps(acts, n_levels):
    if n_levels < 1:
        raise ValueError
    top = acts.max().clamp(min=1e-9)
    return torch.where(acts > 0, (1 + (acts / top * n_levels).long()).clamp(max=n_levels), 0)


@wrong(
    "activation_levels",
    "You rank the zeros with the rest. As a latent is off nearly everywhere, they fill the lower levels: set them "
    "apart.",
)
def zeros_ranked(acts, n_levels):
    if n_levels < 1:
        raise ValueError
    order = acts.flatten().argsort(stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return (1 + ranks * n_levels // len(order)).view_as(acts)


@wrong(
    "activation_levels",
    "You rank all places, zeros as well, and set those to 0 afterwards. The zeros have then taken the lower ranks: m "
    "is the number of places where the latent is on.",
)
def zeros_set_apart_too_late(acts, n_levels):
    return torch.where(acts > 0, zeros_ranked(acts, n_levels), 0)


@wrong(
    "activation_levels",
    "Your level 1 holds the strongest: levels rise with the activation.",
)
def upside_down(acts, n_levels):
    levels = activation_levels(acts, n_levels)
    return torch.where(levels > 0, n_levels + 1 - levels, 0)


@wrong(
    "activation_levels",
    "Your levels begin at 0, which is kept for places where the latent is off.",
)
def from_zero(acts, n_levels):
    levels = activation_levels(acts, n_levels)
    return (levels - 1).clamp(min=0)


@wrong(
    "activation_levels",
    "Equal activations all land in one level with you, so that levels differ in size. Give each place a rank of "
    "its own; ties go by place.",
)
def by_thresholds(acts, n_levels):
    if n_levels < 1:
        raise ValueError
    on = acts[acts > 0]
    if not len(on):
        return torch.zeros_like(acts, dtype=torch.long)
    edges = on.quantile(torch.arange(1, n_levels) / n_levels) if n_levels > 1 else torch.zeros(0)
    return torch.where(acts > 0, 1 + torch.bucketize(acts, edges, right=True), 0)


@wrong(
    "activation_levels",
    "You take what `argsort` gives for the ranks. It says which place comes r-th, and what is needed is which rank a "
    "place has.",
)
def order_for_ranks(acts, n_levels):
    if n_levels < 1:
        raise ValueError
    levels, on = torch.zeros_like(acts, dtype=torch.long), acts > 0
    order = acts[on].argsort(stable=True)
    levels[on] = 1 + order * n_levels // max(1, len(order))
    return levels


@right("activation_levels")
def levels_one_by_one(acts, n_levels):
    if n_levels < 1:
        raise ValueError("no levels")
    flat = acts.flatten().tolist()
    places = sorted((i for i, a in enumerate(flat) if a > 0), key=lambda i: flat[i])
    levels = [0] * len(flat)
    for rank, place in enumerate(places):
        levels[place] = 1 + rank * n_levels // len(places)
    return torch.tensor(levels).view(acts.shape)


def quantile(acts, n_levels, n, generator, pick, order=lambda levels: reversed(levels)):
    levels = activation_levels(acts, n_levels)
    return [
        places[pick(len(places), n, generator)]
        for level in order(range(1, n_levels + 1))
        for places in [(levels == level).nonzero()]
    ]


def at_random(m, n, generator):
    return torch.randperm(m, generator=generator)[:n]


@wrong(
    "examples_by_quantile",
    "You take the first places of each level, and not a random choice: all examples are of the first documents.",
)
def first_ones(acts, n_levels, n, generator):
    return quantile(acts, n_levels, n, generator, lambda m, n, g: torch.arange(min(m, n)))


@wrong(
    "examples_by_quantile",
    "Your weakest level comes first; the strongest should.",
)
def weakest_first(acts, n_levels, n, generator):
    return quantile(acts, n_levels, n, generator, at_random, order=list)


@wrong(
    "examples_by_quantile",
    "You draw with replacement: the same place may come twice.",
)
def with_replacement(acts, n_levels, n, generator):
    return quantile(
        acts, n_levels, n, generator,
        lambda m, n, g: torch.randint(max(m, 1), (min(m, n),), generator=g),
    )  # fmt: skip


@wrong(
    "examples_by_quantile",
    "You draw from torch's global random state, and not from the generator that you were given.",
)
def global_state(acts, n_levels, n, generator):
    return quantile(acts, n_levels, n, generator, lambda m, n, g: torch.randperm(m)[:n])


@wrong(
    "examples_by_quantile",
    "Your rows are (position, document), and should be (document, position).",
)
def columns_exchanged(acts, n_levels, n, generator):
    return [places.flip(1) for places in quantile(acts, n_levels, n, generator, at_random)]


@wrong(
    "examples_by_quantile",
    "There is a group too many: the places where the latent is off.",
)
def with_zeros(acts, n_levels, n, generator):
    drawn = quantile(acts, n_levels, n, generator, at_random)
    return [*drawn, (acts == 0).nonzero()[:n]]


@wrong(
    "examples_by_quantile",
    "You made a generator of your own, so that every draw is the same.",
)
def own_generator(acts, n_levels, n, generator):
    return quantile(acts, n_levels, n, torch.Generator().manual_seed(0), at_random)


@right("examples_by_quantile")
def by_multinomial(acts, n_levels, n, generator):
    levels, drawn = activation_levels(acts, n_levels), []
    for level in range(n_levels, 0, -1):
        places = (levels == level).nonzero()
        k = min(n, len(places))
        drawn.append(places[torch.ones(len(places)).multinomial(k, generator=generator)] if k else places)
    return drawn


@wrong(
    "logit_effects",
    "You leave the layer norm's centring out: a direction that is the same in all dimensions does nothing at all.",
)
def not_centred(directions, ln_weight, W_U):
    effects = (directions * ln_weight) @ W_U
    return effects - effects.mean(-1, keepdim=True)


@wrong(
    "logit_effects",
    "You take from the directions their mean over latents, and not from each its own mean over dimensions.",
)
def centred_over_latents(directions, ln_weight, W_U):
    effects = ((directions - directions.mean(0)) * ln_weight) @ W_U
    return effects - effects.mean(-1, keepdim=True)


@wrong(
    "logit_effects",
    "You leave the layer norm's weight out.",
)
def no_weight(directions, ln_weight, W_U):
    effects = (directions - directions.mean(-1, keepdim=True)) @ W_U
    return effects - effects.mean(-1, keepdim=True)


@wrong(
    "logit_effects",
    "A number is left that all words have in common. It changes no probability: take the mean over the vocabulary "
    "away.",
)
def vocabulary_mean_left(directions, ln_weight, W_U):
    return ((directions - directions.mean(-1, keepdim=True)) * ln_weight) @ W_U


@wrong(
    "logit_effects",
    "You take the mean over latents away, and not over the vocabulary.",
)
def mean_over_latents(directions, ln_weight, W_U):
    effects = ((directions - directions.mean(-1, keepdim=True)) * ln_weight) @ W_U
    return effects - effects.mean(0, keepdim=True)


@wrong(
    "logit_effects",
    "You weigh first and centre then. The layer norm does it the other way round.",
)
def weighed_first(directions, ln_weight, W_U):
    weighed = directions * ln_weight
    effects = (weighed - weighed.mean(-1, keepdim=True)) @ W_U
    return effects - effects.mean(-1, keepdim=True)


@wrong(
    "logit_effects",
    "You divide each direction by its own standard deviation. The layer norm divides by that of the whole stream, "
    "which is left out here.",
)
def normed(directions, ln_weight, W_U):
    return torch.nn.functional.layer_norm(directions, directions.shape[-1:], ln_weight) @ (
        W_U - W_U.mean(-1, keepdim=True)
    )


@right("logit_effects")
def centred_unembedding(directions, ln_weight, W_U):
    W = ln_weight[:, None] * (W_U - W_U.mean(1, keepdim=True))
    return directions @ (W - W.mean(0))


@wrong(
    "feature_dashboard",
    "Your page does not escape the words. A word like <b> then belongs to the page's markup, and one like "
    "<script> runs.",
)
def not_escaped(cards, title):
    return html.unescape(our_dashboard(cards, title).replace("&quot;", "'"))


def changed(**parts):
    def answer(cards, title):
        return our_dashboard([card._replace(**{k: f(card) for k, f in parts.items()}) for card in cards], title)

    return answer


def regrouped(change):
    return lambda card: {heading: change(card, group) for heading, group in card.passages.items()}


@wrong(
    "feature_dashboard",
    "Your colours compare a word with the strongest of its own passage. A weak passage then looks like a strong "
    "one: take the largest activation of the card.",
)
def by_passage(cards, title):
    page = our_dashboard(cards, title)
    for card in cards:
        for group in card.passages.values():
            for passage in group:
                for word, a in zip(passage.words, passage.activations, strict=True):
                    largest = max((x for g in card.passages.values() for q in g for x in q.activations), default=0)
                    old = f'title="{a:.2f}" style="background: rgba(255, 140, 0, {a / largest if largest else 0:.2f})">'
                    own = max(passage.activations)
                    new = f'title="{a:.2f}" style="background: rgba(255, 140, 0, {a / own if own else 0:.2f})">'
                    page = page.replace(old + html.escape(word), new + html.escape(word))
    return page


@wrong(
    "feature_dashboard",
    "You escape twice: a reader sees &amp;lt; where the text has <.",
)
def escaped_twice(cards, title):
    cards = [
        card._replace(
            name=html.escape(card.name), label=html.escape(card.label), facts=html.escape(card.facts),
            passages=regrouped(
                lambda _, group: [p._replace(words=[html.escape(w) for w in p.words]) for p in group]
            )(card),
        )
        for card in cards
    ]  # fmt: skip
    return our_dashboard(cards, title)


@wrong(
    "feature_dashboard",
    "Your headings name the latent only, and not its label.",
)
def no_label(cards, title):
    page = our_dashboard(cards, title)
    for card in cards:
        page = page.replace(f"<h2>{html.escape(f'{card.name}: {card.label}')}", f"<h2>{html.escape(card.name)}")
    return page


@wrong(
    "feature_dashboard",
    "Your page has the passages of the first heading only: the strongest. That is the list that misleads.",
)
def strongest_only(cards, title):
    sections = our_dashboard(cards, title).split("<section")
    kept = []
    for section in sections[1:]:
        head, *groups = section.split("</section>")[0].split("<h3>")
        kept.append("<h3>".join([head, *groups[:1]]) + "</section>")
    return "<section".join([sections[0], *kept]) + "</main></body></html>"


@wrong(
    "feature_dashboard",
    "Your sections are numbered from 1, and the links lead to numbers from 0.",
)
def from_one(cards, title):
    page = our_dashboard(cards, title)
    for i in reversed(range(len(cards))):
        page = page.replace(f'<section id="latent-{i}">', f'<section id="latent-{i + 1}">')
    return page


@wrong(
    "feature_dashboard",
    "Your sections have no bars, or not one for each count.",
)
def no_bars(cards, title):
    return changed(counts=lambda card: [])(cards, title)


@wrong(
    "feature_dashboard",
    "Where all activations are 0 you divide by 0.",
)
def divides_by_zero(cards, title):
    for card in cards:
        every = [a for group in card.passages.values() for passage in group for a in passage.activations]
        if every:
            every[0] / max(every)
    return our_dashboard(cards, title)


def pieces(cards, title, *, of_label=html.escape, largest=None):
    e = html.escape
    out = [
        f"<!doctype html><html><head><meta charset=utf-8><title>{e(title)}</title></head><body><h1>{e(title)}</h1><nav>"
    ]
    out += [f'<a href="#latent-{i}">{e(card.name)}</a>' for i, card in enumerate(cards)]
    out.append("</nav><main>")
    for i, card in enumerate(cards):
        shown = cards if largest == "of all cards" else [card]
        top = max([a for c in shown for g in c.passages.values() for p in g for a in p.activations] or [0])
        out.append(f'<section id="latent-{i}"><h2>{e(card.name)}: {of_label(card.label)}</h2>')
        out.append(f'<p class="facts">{e(card.facts)}</p>')
        out += [f'<i title="{c}"></i>' for c in card.counts]
        for heading, group in card.passages.items():
            out.append(f"<h3>{e(heading)}</h3>")
            for passage in group:
                out.append('<p class="passage">')
                for word, a in zip(passage.words, passage.activations, strict=True):
                    share = a / top if top > 0 else 0.0
                    out.append(
                        f'<span style="background:rgba(255,140,0,{share:.2f});" title="{a:.2f}">{e(word)}</span>'
                    )
                out.append("</p>")
        out.append("</section>")
    return "".join([*out, "</main></body></html>"])


@wrong(
    "feature_dashboard",
    "You escape other texts and not the labels: what is a tag in a label becomes part of the page's markup.",
)
def labels_as_they_are(cards, title):
    return pieces(cards, title, of_label=str)


@wrong(
    "feature_dashboard",
    "Your colours compare a word with the strongest of all cards. A latent with small activations then has hardly any "
    "colour: take the largest activation of its own card.",
)
def one_scale(cards, title):
    return pieces(cards, title, largest="of all cards")


@right("feature_dashboard")
def in_pieces(cards, title):
    return pieces(cards, title)


def scored(z, labels, threshold=0.0, *, says=lambda z, t: z > t, guard=True, f1=None, swap=False):
    yes, labels = says(z, threshold).float(), labels.float()
    both = labels @ yes
    n_yes, n_true = yes.sum(0), labels.sum()
    if guard:
        n_yes, n_true = n_yes.clamp(min=1), n_true.clamp(min=1)
    p, r = both / n_yes, both / n_true
    harmonic = 2 * p * r / (p + r).clamp(min=1e-12) if guard else 2 * p * r / (p + r)
    f = harmonic if f1 is None else f1(p, r)
    return LabelScores(r, p, f) if swap else LabelScores(p, r, f)


@wrong(
    "latent_label_scores",
    "Precision and recall are the wrong way round.",
)
def swapped(z, labels, threshold=0.0):
    return scored(z, labels, threshold, swap=True)


@wrong(
    "latent_label_scores",
    "A latent that is never on has NaN for a score. Say 0: it finds nothing.",
)
def not_a_number(z, labels, threshold=0.0):
    return scored(z, labels, threshold, guard=False)


@wrong(
    "latent_label_scores",
    "Your F1 is NaN where precision and recall are both 0.",
)
def f1_not_a_number(z, labels, threshold=0.0):
    return scored(z, labels, threshold, f1=lambda p, r: 2 * p * r / (p + r))


@wrong(
    "latent_label_scores",
    "Where precision and recall add up to less than 1 you divide by 1, and your F1 is too low.",
)
def sum_at_least_one(z, labels, threshold=0.0):
    return scored(z, labels, threshold, f1=lambda p, r: 2 * p * r / (p + r).clamp(min=1))


@wrong(
    "latent_label_scores",
    "An activation that equals the threshold counts as on with you.",
)
def at_the_threshold(z, labels, threshold=0.0):
    return scored(z, labels, threshold, says=lambda z, t: z >= t)


@wrong(
    "latent_label_scores",
    "Your threshold is always 0.",
)
def always_zero(z, labels, threshold=0.0):
    return scored(z, labels, 0.0)


@wrong(
    "latent_label_scores",
    "Your F1 is the mean of precision and recall. The harmonic mean is nearer to the smaller.",
)
def arithmetic_mean(z, labels, threshold=0.0):
    return scored(z, labels, threshold, f1=lambda p, r: (p + r) / 2)


@wrong(
    "latent_label_scores",
    "Your precision weighs the places by their activation; each place where the latent is on counts once.",
)
def weighed(z, labels, threshold=0.0):
    kept = torch.where(z > threshold, z, 0)
    both = labels.float() @ kept
    p = both / kept.sum(0).clamp(min=1e-12)
    r = scored(z, labels, threshold).recall
    return LabelScores(p, r, 2 * p * r / (p + r).clamp(min=1e-12))


@right("latent_label_scores")
def latent_by_latent(z, labels, threshold=0.0):
    rows = []
    for column in z.T:
        yes = column > threshold
        hit, missed, false = ((yes & labels).sum(), (~yes & labels).sum(), (yes & ~labels).sum())
        p = (hit / (hit + false)).item() if hit + false else 0.0
        r = (hit / (hit + missed)).item() if hit + missed else 0.0
        rows.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
    return LabelScores(*(torch.tensor(values) for values in zip(*rows, strict=True)))
