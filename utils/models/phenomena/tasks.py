"""How often the model is right, task by task, on prompts that its training text leaves out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from utils.data.corpus import PHRASINGS
from utils.data.prompts import (
    UNFAMILIAR,
    Prompt,
    agreement_prompts,
    bracket_prompts,
    date_prompts,
    encode,
    fact_prompts,
    gender_prompts,
    ioi_prompts,
    quote_prompts,
    unfamiliar_prompts,
)
from utils.data.world import VERBS
from utils.models.phenomena.measuring import Estimate, end_logits, mean, share, to_batch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PROMPTS_OF_A_KIND = 400


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, dict]:
    """Accuracies (the answer is the most likely next word), and for pairs of words the difference of their logits.

    Returns:
        "ioi": for each order, kind of template and bystander, and for all of them together; "ioi, unfamiliar
        sentences": for each of `UNFAMILIAR`, and for all; "facts": for each relation, held-out phrasing, alone and in
        the company of other landmarks, and in phrasings seen in training; "dates";
        "agreement", "gender", "brackets": answer against foil; "quotes": the sign of the tense difference. Guessing
        gets 1/200 of the names, 1/24, 1/12, 1/16 and 1/8 of the four relations, 1/7 of the days, 1/12 of the months,
        and 1/2 of the pairs.
    """
    return {
        "ioi": ioi(model, seed),
        "ioi, unfamiliar sentences": unfamiliar(model, seed),
        "facts": facts(model, seed),
        "dates": dates(model),
        "agreement": pairs(model, agreement_prompts()),
        "gender": pairs(model, gender_prompts()),
        "brackets": pairs(model, bracket_prompts(PROMPTS_OF_A_KIND // 2, seed)),
        "quotes": quotes(model, quote_prompts(PROMPTS_OF_A_KIND, seed)),
    }


def accuracy(model: "HookedTransformer", prompts: Sequence[Prompt]) -> Estimate:
    """How often the answer is the most likely next word."""
    batch = to_batch(prompts)
    return share(end_logits(model, batch).argmax(1) == batch.answers, batch.units)


def pairs(model: "HookedTransformer", prompts: Sequence[Prompt]) -> dict[str, Estimate]:
    """How often the answer is the most likely word, how often likelier than the foil, and by how much (logits)."""
    batch = to_batch(prompts)
    logits = end_logits(model, batch)
    difference = logits[batch.rows(), batch.answers] - logits[batch.rows(), batch.foils]
    return {
        "accuracy": share(logits.argmax(1) == batch.answers, batch.units),
        "answer above foil": share(difference > 0, batch.units),
        "logit difference": mean(difference, groups=batch.units),
    }


def ioi(model: "HookedTransformer", seed: int) -> dict[str, dict[str, Estimate]]:
    """Who gets the present: by order, templates and bystander; the foil is the giver."""
    prompts = []
    measured = {}
    for templates, held_out in (("seen", False), ("held-out", True)):
        for company, bystander in (("no bystander", False), ("bystander", True)):
            group = ioi_prompts(PROMPTS_OF_A_KIND, seed, bystander=bystander, held_out_templates=held_out)
            for order in ("ABBA", "BABA"):
                of_order = [prompt for prompt in group if prompt.kind[0] == order]
                measured[f"{order}, {templates} templates, {company}"] = pairs(model, of_order)
            prompts += group
    return {"all": pairs(model, prompts)} | measured


def unfamiliar(model: "HookedTransformer", seed: int) -> dict[str, Estimate]:
    """Who gets the present in sentences put together otherwise than those of training: accuracy in each, and in all."""
    prompts = unfamiliar_prompts(PROMPTS_OF_A_KIND // 8, seed)
    forms = {sentence: [p for p in prompts if p.unit == str(i)] for i, sentence in enumerate(UNFAMILIAR)}
    by_form = {
        sentence: accuracy(model, [replace(p, unit=None) for p in of_form]) for sentence, of_form in forms.items()
    }
    return {"all": accuracy(model, prompts)} | by_form


def facts(model: "HookedTransformer", seed: int) -> dict[str, Estimate]:
    """Facts about landmarks, by relation."""
    held_out = {relation: fact_prompts(relation) for relation in PHRASINGS}
    measured = {"all": accuracy(model, [prompt for prompts in held_out.values() for prompt in prompts])}
    for relation, prompts in held_out.items():
        measured[relation] = accuracy(model, prompts)
        measured[f"{relation}, in company"] = accuracy(model, fact_prompts(relation, company=True, seed=seed))
        measured[f"{relation}, trained phrasing"] = accuracy(model, fact_prompts(relation, held_out=False, seed=seed))
    return measured


def dates(model: "HookedTransformer") -> dict[str, Estimate]:
    """Sums with days and months, seen in training or not."""
    measured = {}
    for kind, held_out in (("seen", False), ("unseen", True)):
        prompts = date_prompts(held_out=held_out)
        for unit in ("day", "month"):
            measured[f"{unit}, {kind}"] = accuracy(model, [prompt for prompt in prompts if prompt.kind[0] == unit])
    return measured


def tense_difference(logits: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
    """Log-odds of a verb in the present over a verb in the past, summed over the world's verbs."""
    forms = torch.tensor([encode(f"{now} {past}") for _, now, past in VERBS])
    return logits[:, forms[:, 0]].logsumexp(1) - logits[:, forms[:, 1]].logsumexp(1)


def quotes(model: "HookedTransformer", prompts: Sequence[Prompt]) -> dict[str, Estimate]:
    """Present tense inside quotation marks, past outside: how often the tense is right, and the tense differences."""
    difference = tense_difference(end_logits(model, to_batch(prompts)))
    inside = torch.tensor([prompt.kind == ("inside",) for prompt in prompts])
    return {
        "accuracy": share((difference > 0) == inside),
        "tense difference inside": mean(difference[inside]),
        "tense difference outside": mean(difference[~inside]),
    }
