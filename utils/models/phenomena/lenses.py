"""Reading the residual stream between layers with the model's own unembedding: the logit lens and the tuned lens.

Sources: nostalgebraist (2020), "interpreting GPT: the logit lens"; Belrose et al. (2023), "Eliciting Latent Predictions
from Transformers with the Tuned Lens", arXiv 2303.08112.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.corpus import PHRASINGS
from utils.data.prompts import Prompt, date_prompts, documents, fact_prompts, ioi_prompts
from utils.models.phenomena.measuring import Batch, Estimate, mean, share, to_batch, untrained

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_TRAIN, N_TEST = 200, 80


class Translator(NamedTuple):
    """One layer's part of a tuned lens: the final residual stream is guessed as ``resid + resid @ A + b``."""

    A: Float[Tensor, "d_model d_model"]
    b: Float[Tensor, " d_model"]

    def __call__(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        return resid + resid @ self.A + self.b


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, dict]:
    """The two lenses on held-out documents, and the rank of the right answer over the layers.

    Returns:
        "logit lens KL", "tuned lens KL": by site, in nats, from the model's final distribution to the lens's. The tuned
        lens ends before the last layer, where both are zero. "logit lens KL, untrained": the same of a random model,
        whose layers change so little that its lens is close without knowing anything. "answer rank": by task and site;
        "answer rank, untrained".
    """
    train, test = documents(N_TRAIN, 100 + seed), documents(N_TEST, 200 + seed)
    translators = fit_tuned_lens(model, train, seed)
    null = untrained(model, seed)
    batches = {task: to_batch(prompts) for task, prompts in _tasks(seed).items()}
    return {
        "logit lens KL": lens_kl(model, test),
        "tuned lens KL": lens_kl(model, test, translators),
        "logit lens KL, untrained": lens_kl(null, test),
        "answer rank": {task: answer_rank(model, batch) for task, batch in batches.items()},
        "answer rank, untrained": {task: answer_rank(null, batch) for task, batch in batches.items()},
    }


def _tasks(seed: int) -> dict[str, list[Prompt]]:
    facts = [prompt for relation in PHRASINGS for prompt in fact_prompts(relation)]
    return {"ioi": ioi_prompts(200, seed), "facts": facts, "dates": date_prompts(held_out=False)}


def sites(model: "HookedTransformer") -> dict[str, str]:
    """Hooks of the residual stream by the name of the place: "embed", then "layer 0", "layer 1" … (behind each)."""
    behind = {f"layer {layer}": f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)}
    return {"embed": "blocks.0.hook_resid_pre"} | behind


@torch.no_grad()
def activations(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], hooks: dict[str, str]
) -> dict[str, Float[Tensor, "batch pos d"]]:
    """What the named hooks see on these tokens, under the same keys.

    Args:
        model: The model.
        tokens: Documents or prompts.
        hooks: Names of hooks (``blocks.0.hook_resid_post``), by whatever they are to be called.
    """
    found: dict[str, list[Tensor]] = {key: [] for key in hooks}
    for part in tokens.split(32):
        _, cache = model.run_with_cache(part, names_filter=list(hooks.values()), return_type=None)
        for key, hook in hooks.items():
            found[key].append(cache[hook])
    return {key: torch.cat(parts) for key, parts in found.items()}


def lens_log_probs(
    model: "HookedTransformer", resid: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_vocab"]:
    """Log-probabilities if the rest of the model were left out: final layer norm, unembedding, softmax."""
    return model.unembed(model.ln_final(resid)).log_softmax(-1)


def kl(log_p: Float[Tensor, "*batch d_vocab"], log_q: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
    """Kullback-Leibler divergence KL(p ‖ q) in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@torch.no_grad()
def lens_kl(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], translators: dict[str, Translator] | None = None
) -> dict[str, Estimate]:
    """Mean KL from the final distribution to the lens's at each site, with an interval over documents.

    Args:
        model: The model.
        tokens: Documents.
        translators: A tuned lens, for the sites that are to be measured; None is the logit lens at every site.
    """
    resid = activations(model, tokens, sites(model))
    final = lens_log_probs(model, resid[f"layer {model.cfg.n_layers - 1}"])
    if translators is not None:
        resid = {site: translate(resid[site]) for site, translate in translators.items()}
    return {site: mean(kl(final, lens_log_probs(model, value)).mean(1)) for site, value in resid.items()}


def fit_tuned_lens(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], seed: int, n_steps: int = 200
) -> dict[str, Translator]:
    """A translator for every site before the last layer's, trained from the identity to the smallest KL.

    Args:
        model: Its weights stay as they are, and so do their gradients.
        tokens: Documents to train on.
        seed: Of the order of the tokens.
        n_steps: Steps of Adam for each site.
    """
    resid = activations(model, tokens, sites(model))
    final = lens_log_probs(model, resid.pop(f"layer {model.cfg.n_layers - 1}")).detach().flatten(0, 1)
    return {site: _fit(model, value.flatten(0, 1), final, seed, n_steps) for site, value in resid.items()}


def _fit(
    model: "HookedTransformer",
    resid: Float[Tensor, "n d_model"],
    final: Float[Tensor, "n d_vocab"],
    seed: int,
    n_steps: int,
) -> Translator:
    generator, d_model = torch.Generator().manual_seed(seed), resid.shape[1]
    translate = Translator(torch.zeros(d_model, d_model).requires_grad_(), torch.zeros(d_model).requires_grad_())
    optimizer = torch.optim.Adam(translate, lr=5e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    for _ in range(n_steps):
        rows = torch.randint(len(resid), (512,), generator=generator)
        guess = lens_log_probs(model, translate(resid[rows]).unsqueeze(0)).squeeze(0)
        loss = kl(final[rows], guess).mean()
        translate.A.grad, translate.b.grad = torch.autograd.grad(loss, list(translate))
        optimizer.step()
        schedule.step()
    return Translator(translate.A.detach(), translate.b.detach())


@torch.no_grad()
def answer_rank(model: "HookedTransformer", batch: Batch) -> dict[str, dict[str, Estimate]]:
    """How many words the logit lens puts above the right answer, at each site, read at "END".

    Returns:
        By site, "rank" (0 is the top; the mean over prompts) and "top" (the share of prompts at rank 0).
    """
    resid = activations(model, batch.tokens, sites(model))
    found = {}
    for site, value in resid.items():
        guess = lens_log_probs(model, value[batch.rows(), batch.at["END"]].unsqueeze(0)).squeeze(0)
        ranks = (guess > guess[batch.rows(), batch.answers].unsqueeze(1)).sum(1)
        found[site] = {
            "rank": mean(ranks.float(), groups=batch.units),
            "top": share(ranks == 0, batch.units),
        }
    return found
