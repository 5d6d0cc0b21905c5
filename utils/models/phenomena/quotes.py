"""How the model knows that it stands inside quotation marks: probes, their controls, and interventions.

Which word a token is must not tell: of each word, equally many tokens inside and outside are drawn, so that a probe
that knows the word and nothing else is at 1/2. Quotation marks, and words found on one side only, drop out.

Sources: Hewitt and Liang (2019), "Designing and Interpreting Probes with Control Tasks", arXiv 1909.03368; Marks and
Tegmark (2023), "The Geometry of Truth", arXiv 2310.06824 (the mass-mean probe).
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.data.prompts import documents, quote_prompts, token_id, token_labels
from utils.models.phenomena.lenses import activations, sites
from utils.models.phenomena.measuring import Batch, Estimate, mean, ratio, share, to_batch, untrained
from utils.models.phenomena.tasks import tense_difference

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_TRAIN, N_TEST, N_PROMPTS = 300, 150, 120
CONTROL_SEEDS = 5
RANDOM_DIRECTIONS = 20
MULTIPLES, MULTIPLE = (1, 2, 4), 4  # of the difference of means; the last is compared with random directions


class Probe(NamedTuple):
    """Says "inside" where ``activation @ direction > threshold``."""

    direction: Float[Tensor, " d_model"]
    threshold: Float[Tensor, ""]

    def __call__(self, activation: Float[Tensor, "*batch d_model"]) -> Bool[Tensor, "*batch"]:
        return activation @ self.direction > self.threshold


class Drawn(NamedTuple):
    """Tokens drawn from documents.

    Attributes:
        resid: Their activations, by site.
        inside: Whether they stand inside quotation marks.
        words: Their ids.
        documents: The rows that they come from.
    """

    resid: dict[str, Float[Tensor, "n d_model"]]
    inside: Bool[Tensor, " n"]
    words: Int[Tensor, " n"]
    documents: Int[Tensor, " n"]


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, dict]:
    """Probes at every site, and what removing or adding their directions does to the tense of the next verb.

    Returns:
        "probes": by site, what `probe_site` gives; "probes, untrained": the logistic probe on a random model; "tense":
        the tense of the next verb as it is (`summary`); "interventions": by layer, its `summary` after "remove" (the
        mass-mean direction), "remove logistic", "add 1", "add 2", "add 4" (times the difference of the classes' means,
        towards the other side); "random directions": the same with random directions of the same length, at the layer
        before the last where adding turns most verbs.
    """
    train, test = quoting_documents(N_TRAIN, 300 + seed), quoting_documents(N_TEST, 400 + seed)
    prompts = quote_prompts(N_PROMPTS, seed)
    batch, inside = to_batch(prompts), torch.tensor([prompt.kind == ("inside",) for prompt in prompts])
    train_drawn, test_drawn = draw(model, train, seed), draw(model, test, seed)
    resid = activations(model, batch.tokens, sites(model))
    ends = {site: value[batch.rows(), batch.at["END"]] for site, value in resid.items()}
    null = untrained(model, seed)
    null_drawn, null_test = draw(null, train, seed), draw(null, test, seed)
    probes = {site: probe_site(train_drawn, test_drawn, site, ends[site], inside) for site in sites(model)}
    return {
        "probes": probes,
        "probes, untrained": {site: _logistic_accuracy(null_drawn, null_test, site) for site in sites(model)},
    } | interventions(model, train_drawn, batch, inside, seed)


def quoting_documents(n: int, seed: int) -> Int[Tensor, "n pos"]:
    """Documents that have a quotation mark in them, which more than every third one does."""
    found = documents(3 * n, seed)
    return found[(found == token_id('"')).any(1)][:n]


def draw(model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], seed: int) -> Drawn:
    """Of each word but the quotation mark, equally many tokens inside and outside, with their activations."""
    inside = token_labels(tokens)["inside quotes"]
    chosen = balanced(tokens, inside, seed)
    resid = {site: value[chosen] for site, value in activations(model, tokens, sites(model)).items()}
    return Drawn(resid, inside[chosen], tokens[chosen], chosen.nonzero()[:, 0])


def balanced(
    tokens: Int[Tensor, "batch pos"], inside: Bool[Tensor, "batch pos"], seed: int
) -> Bool[Tensor, "batch pos"]:
    """A random choice of tokens: of each word as many inside as outside, as many as there are; no quotation marks."""
    order = torch.randperm(tokens.numel(), generator=torch.Generator().manual_seed(seed))
    words, sides = tokens.flatten()[order], inside.flatten()[order]
    chosen = torch.zeros(tokens.numel(), dtype=torch.bool)
    for word in words[sides].unique().tolist():
        both = [order[(words == word) & (sides == side)] for side in (True, False)]
        for positions in both if word != token_id('"') else ():
            chosen[positions[: min(map(len, both))]] = True
    return chosen.view_as(tokens)


def probe_site(
    train: Drawn, test: Drawn, site: str, ends: Float[Tensor, "prompts d_model"], inside: Bool[Tensor, " prompts"]
) -> dict[str, Estimate]:
    """Probes at one site; chance is 1/2 everywhere.

    Args:
        train, test: Tokens of different documents.
        site: Where to read.
        ends: Activations at the end of prompts that are cut before a verb, and whether they are ``inside``.

    Returns:
        "logistic", "mass-mean": accuracy on the test documents. "logistic, before a verb", "mass-mean, before a verb":
        that of the same probes at the end of the prompts. "control": accuracy of logistic probes on labels drawn at
        random for each word, inside or outside; over several draws. "selectivity": "logistic" minus "control".
    """
    logistic = logistic_probe(train.resid[site], train.inside)
    massmean = mass_mean_probe(train.resid[site], train.inside)
    scores = {}
    for name, probe in (("logistic", logistic), ("mass-mean", massmean)):
        scores[name] = _by_document(probe(test.resid[site]) == test.inside, test)
        scores[f"{name}, before a verb"] = share(probe(ends) == inside)
    control = torch.tensor([control_accuracy(train, test, site, seed) for seed in range(CONTROL_SEEDS)])
    return scores | {"control": mean(control), "selectivity": mean(scores["logistic"]["value"] - control)}


def control_accuracy(train: Drawn, test: Drawn, site: str, seed: int) -> float:
    """Accuracy of a logistic probe for labels that were drawn once for each word and mean nothing."""
    labels = torch.rand(
        int(max(train.words.max(), test.words.max())) + 1, generator=torch.Generator().manual_seed(seed)
    )
    labels = labels < 0.5
    probe = logistic_probe(train.resid[site], labels[train.words])
    return (probe(test.resid[site]) == labels[test.words]).float().mean().item()


def _logistic_accuracy(train: Drawn, test: Drawn, site: str) -> Estimate:
    return _by_document(logistic_probe(train.resid[site], train.inside)(test.resid[site]) == test.inside, test)


def _by_document(right: Bool[Tensor, " n"], drawn: Drawn) -> Estimate:
    """A share of tokens with an interval over documents: the tokens of one document are not independent."""
    return ratio(torch.bincount(drawn.documents, right.float()), torch.bincount(drawn.documents).float())


def logistic_probe(x: Float[Tensor, "n d_model"], labels: Bool[Tensor, " n"], penalty: float = 1e-3) -> Probe:
    """Logistic regression by Newton's method.

    Args:
        x: Activations; at least one of each label.
        labels: What to predict.
        penalty: Half the factor on the squared norm of the weights, for activations centred and divided by one number
            that makes their mean squared entry 1.

    Source: Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical Learning", section 4.4.1.
    """
    centre = x.mean(0)
    scale = (x - centre).square().mean().sqrt()
    inputs = torch.cat([(x - centre) / scale, torch.ones(len(x), 1)], dim=1).double()
    ridge = torch.full((inputs.shape[1],), 2 * penalty, dtype=torch.double)
    ridge[-1] = 1e-9  # the intercept is free
    weights = torch.zeros(inputs.shape[1], dtype=torch.double)
    for _ in range(25):
        p = (inputs @ weights).sigmoid()
        gradient = inputs.T @ (p - labels.double()) / len(x) + ridge * weights
        hessian = (inputs.T * (p * (1 - p))) @ inputs / len(x) + ridge.diag()
        step = torch.linalg.solve(hessian, gradient)
        weights = weights - step / max(1.0, step.norm().item() / 5)
        if step.norm() < 1e-6:
            break
    direction = (weights[:-1] / scale).float()
    return Probe(direction, direction @ centre - weights[-1].float())


def mass_mean_probe(x: Float[Tensor, "n d_model"], labels: Bool[Tensor, " n"]) -> Probe:
    """The difference of the two classes' means as direction, halfway between them as threshold."""
    inside, outside = x[labels].mean(0), x[~labels].mean(0)
    return Probe(inside - outside, (inside - outside) @ (inside + outside) / 2)


def interventions(
    model: "HookedTransformer", train: Drawn, batch: Batch, inside: Bool[Tensor, " prompts"], seed: int
) -> dict[str, dict]:
    """What changing the residual stream along probe directions, at all positions, does to the tense of the next verb.

    Behind the last layer a direction that is added goes straight into the verbs' logits, so the layer whose effect is
    compared with random directions is an earlier one.

    Returns:
        "tense", "interventions", "random directions": see `measure`.
    """
    resid = activations(model, batch.tokens, sites(model))
    last = model.cfg.n_layers - 1
    found: dict[str, dict] = {"tense": summary(tense_from(model, resid[f"layer {last}"], last, batch), inside)}
    probes = {site: mass_mean_probe(value, train.inside) for site, value in train.resid.items()}
    changes = {}
    for layer in range(model.cfg.n_layers):
        site = f"layer {layer}"
        changed = changes_along(resid[site], probes[site], inside, MULTIPLES)
        changed["remove logistic"] = remove(resid[site], logistic_probe(train.resid[site], train.inside))
        changes[site] = {name: summary(tense_from(model, x, layer, batch), inside) for name, x in changed.items()}
    strongest = max(range(last), key=lambda layer: changes[f"layer {layer}"][f"add {MULTIPLE}"]["wrong tense"]["value"])
    site = f"layer {strongest}"
    drawn = [
        {
            name: tense_from(model, x, strongest, batch)
            for name, x in changes_along(resid[site], probe, inside, (MULTIPLE,)).items()
        }
        for probe in random_probes(train.resid[site], probes[site], seed)
    ]
    extremes = {name: _extremes(torch.stack([tense[name] for tense in drawn]), inside) for name in drawn[0]}
    return found | {"interventions": changes, "random directions": {"layer": strongest} | extremes}


def changes_along(
    resid: Float[Tensor, "prompts pos d_model"],
    probe: Probe,
    inside: Bool[Tensor, " prompts"],
    multiples: tuple[int, ...],
) -> dict[str, Float[Tensor, "prompts pos d_model"]]:
    """The residual stream without a probe's direction, and with multiples of it, by what `measure` calls them."""
    added = {f"add {multiple}": steer(resid, multiple * probe.direction, inside) for multiple in multiples}
    return {"remove": remove(resid, probe)} | added


def random_probes(x: Float[Tensor, "n d_model"], like: Probe, seed: int) -> list[Probe]:
    """Random directions as long as a probe's, with the activations' mean as threshold."""
    directions = torch.randn(RANDOM_DIRECTIONS, x.shape[1], generator=torch.Generator().manual_seed(seed))
    directions *= like.direction.norm() / directions.norm(dim=1, keepdim=True)
    return [Probe(direction, x.mean(0) @ direction) for direction in directions]


def remove(resid: Float[Tensor, "*batch d_model"], probe: Probe) -> Float[Tensor, "*batch d_model"]:
    """Move every activation along the probe's direction to where the probe cannot decide."""
    excess = resid @ probe.direction - probe.threshold
    return resid - (excess / probe.direction.square().sum()).unsqueeze(-1) * probe.direction


def steer(
    resid: Float[Tensor, "prompts pos d_model"], direction: Float[Tensor, " d_model"], inside: Bool[Tensor, " prompts"]
) -> Float[Tensor, "prompts pos d_model"]:
    """Push towards the other side: add the direction outside, subtract it inside."""
    return resid + torch.where(inside, -1.0, 1.0)[:, None, None] * direction


@torch.no_grad()
def tense_from(
    model: "HookedTransformer", resid: Float[Tensor, "prompts pos d_model"], layer: int, batch: Batch
) -> Float[Tensor, " prompts"]:
    """The tense difference before the verb if the residual stream behind ``layer`` were this."""
    logits = model(resid, start_at_layer=layer + 1)
    return tense_difference(logits[batch.rows(), batch.at["END"]])


def summary(tense: Float[Tensor, " prompts"], inside: Bool[Tensor, " prompts"]) -> dict[str, Estimate]:
    """The tense difference (above 0: present) inside and outside, and the share of prompts with the wrong tense."""
    wrong = share((tense > 0) != inside)
    return {"inside": mean(tense[inside]), "outside": mean(tense[~inside]), "wrong tense": wrong}


def _extremes(tense: Float[Tensor, "draws prompts"], inside: Bool[Tensor, " prompts"]) -> dict[str, float]:
    """The same over random directions: means over prompts, then their extremes over the draws."""
    wrong = ((tense > 0) != inside).float().mean(1)
    return {
        "lowest inside": tense[:, inside].mean(1).min().item(),
        "highest outside": tense[:, ~inside].mean(1).max().item(),
        "most wrong tense": wrong.max().item(),
        "wrong tense": wrong.mean().item(),
    }
