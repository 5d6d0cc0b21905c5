"""Where the model keeps its facts about landmarks: causal tracing, and knocking out parts of it.

Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT": the subject's embeddings are drowned in
noise, then one activation at a time is put back to what it was without the noise.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.corpus import PHRASINGS
from utils.data.prompts import fact_prompts
from utils.models.phenomena.measuring import Batch, end_logits, mean, ratio, share, to_batch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PROMPTS_PER_RELATION = 30
N_NOISES = 2
NOISE = 3.0  # standard deviations of the embedding matrix's entries
SITES = {"resid": "hook_resid_post", "mlp": "hook_mlp_out", "attn": "hook_attn_out"}
POSITIONS = ("first", "last", "after", "END")

Hooks = list[tuple[str, Callable]]


class Trace(NamedTuple):
    """Everything a restoration needs.

    Attributes:
        batch: Prompts, each once for every draw of noise; ``at["after"]`` is a random token between subject and END.
        has_after: Whether there is such a token.
        noise: Added to the embeddings of the subject's two tokens.
        clean: Activations without noise, by hook name.
        clean_p: Probability of the answer without noise.
        noisy_p: The same with it.
    """

    batch: Batch
    has_after: Tensor
    noise: Float[Tensor, "batch two d_model"]
    clean: dict[str, Float[Tensor, "batch pos d_model"]]
    clean_p: Float[Tensor, " batch"]
    noisy_p: Float[Tensor, " batch"]


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, object]:
    """Indirect effects of restored sites as shares of the total effect, and accuracies with parts knocked out.

    The prompts are held-out phrasings of facts of all four relations that the model knows.
    """
    batch = known_facts(model, seed)
    run = trace(model, batch, seed)
    n_layers = model.cfg.n_layers
    effects = {
        f"{kind}{layer}@{position}": restored(model, run, [(layer, kind)], position, seed)
        for kind in SITES
        for layer in range(n_layers)
        for position in POSITIONS
    }
    windows = {
        f"mlp{layer}-{layer + 1}@last": restored(model, run, [(layer, "mlp"), (layer + 1, "mlp")], "last", seed)
        for layer in range(n_layers - 1)
    }
    early = {site: effects[site] for site in effects if site.endswith("@last") and not site.startswith("attn")}
    best = max(early, key=lambda site: early[site]["value"])
    return {
        "probability, clean": mean(run.clean_p, seed, run.batch.units),
        "probability, noisy": mean(run.noisy_p, seed, run.batch.units),
        "share of the total effect": effects | windows,
        "best site at the last subject token": {"site": best} | early[best],
        "accuracy without an MLP": mlps_knocked_out(model, batch, seed),
        "accuracy with END not seeing": edges_knocked_out(model, batch, seed),
    }


def known_facts(model: "HookedTransformer", seed: int) -> Batch:
    """Up to 30 facts of each relation that the model gets right in the held-out phrasing, drawn at random.

    Raises:
        ValueError: If it knows none.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for relation in PHRASINGS:
        prompts = fact_prompts(relation)
        batch = to_batch(prompts)
        right = end_logits(model, batch).argmax(1) == batch.answers
        known = right.nonzero()[:, 0][torch.randperm(int(right.sum()), generator=generator)]
        chosen += [prompts[i] for i in known[:PROMPTS_PER_RELATION].tolist()]
    if not chosen:
        raise ValueError("The model knows no fact in its held-out phrasing, so there is nothing to trace.")
    return to_batch(chosen)


def trace(model: "HookedTransformer", batch: Batch, seed: int) -> Trace:
    """The clean run and the noisy run."""
    generator = torch.Generator().manual_seed(seed)
    batch = repeat(batch, N_NOISES)
    room = batch.at["END"] - batch.at["last"] - 1
    step = (torch.rand(len(room), generator=generator) * room).long()
    batch.at["after"] = batch.at["last"] + 1 + step.clamp(max=(room - 1).clamp(min=0))
    deviation = NOISE * model.W_E.detach().std()
    noise = deviation * torch.randn(len(room), 2, model.cfg.d_model, generator=generator)
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name.endswith(tuple(SITES.values())))
    run = Trace(batch, room > 0, noise, dict(cache), answer_probability(model, batch), torch.zeros(()))
    return run._replace(noisy_p=answer_probability(model, batch, [drown(run)]))


def repeat(batch: Batch, times: int) -> Batch:
    """The whole batch several times over: prompt i stands at i, i + n, i + 2n …"""
    at = {name: positions.repeat(times) for name, positions in batch.at.items()}
    return Batch(batch.tokens.repeat(times, 1), at, batch.answers.repeat(times), None, batch.units * times)


@torch.no_grad()
def answer_probability(
    model: "HookedTransformer", batch: Batch, hooks: Sequence[tuple[str, Callable]] = ()
) -> Float[Tensor, " batch"]:
    """The probability of the answer at END."""
    logits = model.run_with_hooks(batch.tokens, fwd_hooks=list(hooks))[batch.rows(), batch.at["END"]]
    return logits.softmax(-1)[batch.rows(), batch.answers]


def drown(run: Trace) -> tuple[str, Callable]:
    """The hook that adds the noise to the subject's embeddings."""

    def add(embed: Float[Tensor, "batch pos d_model"], hook: object) -> Tensor:
        noisy = embed.clone()
        for i, position in enumerate(("first", "last")):
            noisy[run.batch.rows(), run.batch.at[position]] += run.noise[:, i]
        return noisy

    return "hook_embed", add


def restored(
    model: "HookedTransformer", run: Trace, sites: Sequence[tuple[int, str]], position: str, seed: int
) -> dict[str, float]:
    """How much of the noise's effect goes away when these sites, at one position, are as they were without it.

    Returns:
        The indirect effect as a share of the total effect: (restored - noisy) / (clean - noisy), each a mean of the
        answer's probability, with an interval over landmarks.
    """
    rows, at = run.batch.rows(), run.batch.at[position]
    hooks: Hooks = [drown(run)]
    for layer, kind in sites:
        name = f"blocks.{layer}.{SITES[kind]}"

        def restore(value: Float[Tensor, "batch pos d_model"], hook: object, name: str = name) -> Tensor:
            value[rows, at] = run.clean[name][rows, at]
            return value

        hooks.append((name, restore))
    gain = answer_probability(model, run.batch, hooks) - run.noisy_p
    counted = run.has_after if position == "after" else torch.ones_like(run.has_after)
    units = [unit for unit, count in zip(run.batch.units, counted.tolist(), strict=True) if count]
    return ratio(gain[counted], (run.clean_p - run.noisy_p)[counted], seed, units)


def mlps_knocked_out(model: "HookedTransformer", batch: Batch, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy when an MLP's output at one position is its mean over all the prompts there."""
    measured = {"none": _accuracy(model, batch, [])}
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name.endswith("hook_mlp_out"))
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.hook_mlp_out"
        for position in ("first", "last", "END"):
            rows, at = batch.rows(), batch.at[position]
            average = cache[name][rows, at].mean(0)

            def replace(
                value: Float[Tensor, "batch pos d_model"], hook: object, at: Tensor = at, average: Tensor = average
            ) -> Tensor:
                value[rows, at] = average  # noqa: B023
                return value

            measured[f"mlp{layer}@{position}"] = _accuracy(model, batch, [(name, replace)])
    return measured


def edges_knocked_out(model: "HookedTransformer", batch: Batch, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy when one layer's heads cannot look from END at the subject, or at as many other tokens ("others")."""
    generator = torch.Generator().manual_seed(seed)
    subject = torch.stack([batch.at["first"], batch.at["last"]], dim=1)
    allowed = torch.arange(batch.tokens.shape[1]) < batch.at["END"][:, None]
    allowed[:, 0] = False
    allowed.scatter_(1, subject, False)
    others = (torch.rand(allowed.shape, generator=generator) * allowed).topk(2, dim=1).indices
    targets = {"the subject": subject, "its last token": subject[:, 1:], "two other tokens": others}
    return {
        f"{name} in layer {layer}": _accuracy(model, batch, [blind(batch, layer, keys)])
        for name, keys in targets.items()
        for layer in range(model.cfg.n_layers)
    }


def blind(batch: Batch, layer: int, keys: Int[Tensor, "batch k"]) -> tuple[str, Callable]:
    """A hook that keeps a layer's heads from looking from END at the positions ``keys``."""

    def mask(scores: Float[Tensor, "batch head query key"], hook: object) -> Tensor:
        rows = batch.rows()[:, None]
        scores[rows, :, batch.at["END"][:, None], keys] = -torch.inf
        return scores

    return f"blocks.{layer}.attn.hook_attn_scores", mask


def _accuracy(model: "HookedTransformer", batch: Batch, hooks: Hooks) -> dict[str, float]:
    with model.hooks(fwd_hooks=hooks):
        return share(end_logits(model, batch).argmax(1) == batch.answers, batch.units)
