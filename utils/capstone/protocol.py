"""The whole protocol on a project, how large a project has to be, and what a record of one lacks."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit
from torch import Tensor, nn

from utils.capstone.controls import refutation_test
from utils.capstone.many import holm, sign_flip_test
from utils.capstone.number import tokens_of
from utils.capstone.splits import split_by_template
from utils.course.cases import estimate
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.erasing import ablate_direction, amnesic_effect
from utils.probes.evaluate import control_task, probe_by_layer
from utils.probes.fit import least_squares_probe, mass_mean_probe
from utils.sae.clamp import same_length

DOSES = (1.0, 2.0)  # of a push, in lengths of the direction


def units_needed(spread: float, half_width: float) -> int:
    """How many independent units a 95 % interval of the wanted width takes.

    Args:
        spread: The standard deviation between units that is expected, above 0.
        half_width: The largest half-width that would still answer the question, above 0; the same unit as ``spread``.

    Returns:
        The smallest n, at least 2, with  t(n - 1) · spread / √n <= half_width , where t(n - 1) is the 0.975 quantile of
        Student's t with n - 1 degrees of freedom.

    Raises:
        ValueError: If one of the two is not above 0 or not finite (NaN is not).
    """
    if not (0 < spread < math.inf and 0 < half_width < math.inf):
        raise ValueError(f"spread and half_width must be finite and above 0, got {spread} and {half_width}")

    def wide(n: int) -> bool:
        return float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n) > half_width

    high = 2
    while wide(high):
        high *= 2
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if wide(middle) else (low, middle)
    return low


def audit_protocol(record: Mapping[str, object]) -> list[str]:
    """Which steps of the protocol a project's record lacks.

    A key that is missing, None, or empty is lacking. The steps, and when each is kept:

    - "proposal": "feature" and "would_refute" are texts with more than blanks in them.
    - "held out": "folds" are pairs (templates fitted to, templates tested on), lists of numbers; in no fold does a
      template stand on both sides.
    - "units": "accuracy" has a number for each of at least 8 templates.
    - "baseline": "baseline" has as many numbers as "accuracy".
    - "control task": so has "control".
    - "correction": "p" has a p-value for each place that was looked at. With one place nothing is to be corrected. With
      more, "p_adjusted" has as many, none of them smaller than its p-value, and not all equal to theirs.
    - "random directions": "random" has at least 19 rows, one for each draw: with fewer, p can't be 0.05.
    - "equal length": "push_lengths" has at least two numbers, and none differs from the first, which is the direction's
      own, by more than a hundredth of it.
    - "refutation": "refutation" is a dict with the key "named" and at least one other.

    Args:
        record: What a project wrote down. It is not changed.

    Returns:
        The steps that are not kept, in the order above; an empty list if all are.
    """

    def given(key: str) -> list:
        value = record.get(key)
        return [] if value is None else list(value)

    n = len(given("accuracy"))
    p, adjusted, lengths = given("p"), given("p_adjusted"), given("push_lengths")
    corrected = len(adjusted) == len(p) and all(a >= b for a, b in zip(adjusted, p, strict=True)) and adjusted != p
    kept = {
        "proposal": all("".join(given(key)).strip() for key in ("feature", "would_refute")),
        "held out": bool(given("folds")) and not any(set(fitted) & set(tested) for fitted, tested in given("folds")),
        "units": n >= 8,
        "baseline": 0 < n == len(given("baseline")),
        "control task": 0 < n == len(given("control")),
        "correction": len(p) == 1 or (len(p) > 1 and corrected),
        "random directions": len(given("random")) >= 19,
        "equal length": len(lengths) >= 2 and all(abs(other - lengths[0]) <= 0.01 * lengths[0] for other in lengths),
        "refutation": "named" in given("refutation") and len(given("refutation")) >= 2,
    }
    return [step for step, is_kept in kept.items() if not is_kept]


def lead_of(model: nn.Module, logits: Tensor, end: Tensor, up: list[str], down: list[str]) -> Float[Tensor, " n"]:
    """By how many nats some words lead over others, behind the end of each text."""
    at_end = logits[torch.arange(len(end)), end].log_softmax(-1)
    first, second = ([model.to_single_token(word) for word in words] for words in (up, down))
    return at_end[:, first].logsumexp(1) - at_end[:, second].logsumexp(1)


def pair_effects(model: nn.Module, pairs: list, up: list[str], down: list[str]) -> Float[Tensor, " pair"]:
    """For each pair of texts, the lead behind the second less that behind the first."""
    sides = []
    for texts in zip(*pairs, strict=True):
        tokens, end = tokens_of(model, list(texts))
        with torch.no_grad():
            sides.append(lead_of(model, model(tokens), end, up, down))
    return sides[1] - sides[0]


def run_protocol(model: nn.Module, project: Mapping[str, object], *, n_random: int = 19, seed: int = 0) -> dict:
    """All steps on a project, from probe to refutation; chosen on a third of the templates, reported on the others.

    Args:
        model: With ``to_tokens``, ``to_single_token`` and hook points, as ``load_model`` returns it.
        project: A dict with "feature" and "would_refute" (texts); "texts", and for each of them "present" (True or
            False), "templates" (a number) and "words" (the word on which the feature rests); "places", a list of
            (hook point, how many tokens before the end); "up" and "down", the words between which the feature should
            decide; "named", pairs of texts that differ in the feature alone, absent in the first and present in the
            second; and "others", by name, pairs that differ in another property.
        n_random: How many random directions.
        seed: Of all draws.

    Returns:
        What ``audit_protocol`` and ``protocol_report`` read.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens, end = tokens_of(model, project["texts"])
    present, templates = torch.tensor(project["present"]), torch.tensor(project["templates"])
    rows, words = torch.arange(len(end)), sorted(set(project["words"]))
    sites = list(dict.fromkeys(["hook_embed", *(site for site, _ in project["places"])]))
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, sites)

    def accuracy(site: str, back: int, labels: Tensor) -> Tensor:
        x = cache[site][rows, end - back]
        if bool((x == x[0]).all()):  # the same word in all texts says nothing
            return torch.full((len(templates.unique()),), 0.5)
        return probe_by_layer({site: x}, labels, templates, least_squares_probe)[site]

    found = [accuracy(site, back, present) for site, back in project["places"]]
    baselines = [accuracy("hook_embed", back, present) for _, back in project["places"]]
    gains = torch.stack(found) - torch.stack(baselines)
    p = sign_flip_test(gains)
    adjusted = holm(p)[1]
    choosing = split_by_template(templates, present, 0.33, generator)
    mine = torch.tensor([bool(choosing[templates == name].all()) for name in templates.unique()])
    chosen = int(gains[:, mine].mean(1).argmax())
    site, back = project["places"][chosen]
    ids = torch.tensor([words.index(word) for word in project["words"]])
    control_labels = control_task(ids, len(words), 0.5, generator)
    return {
        "feature": project["feature"], "would_refute": project["would_refute"],
        "places": [f"{site}, {back} before the end" for site, back in project["places"]], "chosen": chosen,
        "folds": [([int(n) for n in templates.unique() if n != name], [int(name)]) for name in templates.unique()],
        "all_accuracy": [values.tolist() for values in found], "all_baseline": [v.tolist() for v in baselines],
        "accuracy": found[chosen].tolist(), "baseline": baselines[chosen].tolist(),
        "control": accuracy(site, back, control_labels).tolist(), "control_labels": control_labels.tolist(),
        "p": p.tolist(), "p_adjusted": adjusted.tolist(), "reported": estimate(found[chosen][~mine].tolist()),
        **_interventions(model, project, cache[site], tokens, end, logits, (site, back), n_random, generator),
        **_refutation(model, project),
    }  # fmt: skip


def first_half(templates: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which texts belong to the first half of the templates, in ascending order; the middle one counts to it."""
    names = templates.unique()
    return torch.isin(templates, names[: (len(names) + 1) // 2])


def _interventions(model, project, value, tokens, end, logits, place, n_random, generator) -> dict:
    """The direction of the means removed, and added, beside random ones: fitted to half of the templates.

    It is measured on the other half. On the texts that it was fitted to, a direction for meaningless labels would have
    an effect, too.
    """
    present, templates = torch.tensor(project["present"]), torch.tensor(project["templates"])
    site, back = place
    fitted, x = first_half(templates), value[torch.arange(len(end)), end - back]
    direction, about = mass_mean_probe(x[fitted], present[fitted]).direction, x[fitted].mean(0)
    random = same_length(direction, n_random, generator)
    tokens, end, logits = tokens[~fitted], end[~fitted], logits[~fitted]
    rows, toward = torch.arange(len(end)), torch.where(present[~fitted], 1.0, -1.0)

    def measured(out: Tensor) -> Tensor:
        return lead_of(model, out, end, project["up"], project["down"])

    def pushed(one: Tensor) -> Tensor:
        where = (rows, end - back)
        return measured(run_with_hooks(model, tokens, [(site, lambda v: v.index_put(where, v[where] + one))]))

    with torch.no_grad():
        removed = [
            measured(ablate_direction(model, tokens, [site], one[None], about=about, positions=end - back))
            for one in (direction, *random)
        ]
        few = (direction, *random[:5])
        steered = [[(pushed(dose * one) - measured(logits)).mean().item() for dose in DOSES] for one in few]
    intact, by_chance = toward * measured(logits), toward * torch.stack(removed[1:])
    return {
        "effect": amnesic_effect(intact, toward * removed[0], by_chance, templates[~fitted]),
        "intact": intact.tolist(), "erased": (toward * removed[0]).tolist(), "random": by_chance.tolist(),
        "directions": random, "push_lengths": [one.norm().item() for one in few], "doses": list(DOSES),
        "steered": steered,
    }  # fmt: skip


def _refutation(model, project) -> dict:
    named, *others = (
        pair_effects(model, pairs, project["up"], project["down"])
        for pairs in (project["named"], *project["others"].values())
    )
    effects, verdict = refutation_test(named, dict(zip(project["others"], others, strict=True)))
    return {"refutation": effects, "verdict": verdict}
