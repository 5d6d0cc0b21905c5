"""The case of part 07b: whether a network uses a direction from which a feature can be decoded."""

import torch

from utils.course.cases import estimate
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.erasing import project_out
from utils.probes.fit import mass_mean_probe
from utils.probes.planted import inside, leads, planted_network, planted_texts


def is_it_used(seed: int) -> dict[str, object]:
    """Design an experiment: does a network use a direction from which a feature can be decoded?

    ``planted_network(seed)`` makes a network, in which the quotation can be decoded along ``network.direction`` with
    97 % and more. Three readings are open. "used": the tense is read from this direction, and goes wrong without it.
    "not used": it is read from elsewhere, and the direction is a copy that nobody reads. "one of several": it is read
    from here and from elsewhere, and either suffices. Your function is called with other seeds than those you have
    tried, and has to find out each time.

    To *remove* directions means: ``project_out`` at "hook_state", about the mean state of your texts. A removal's
    *effect* on a text is the lead of the right tense with nothing removed less the lead after the removal; ``leads``
    gives leads.

    Args:
        seed: Which network.

    Returns:
        A dict with these keys:

        "texts": [n, 6], at least 100 texts as ``planted_texts`` makes them, no two alike; between 40 and 60 % of them
            inside quotation marks. All effects are measured on them.
        "others": [k, d], from 1 to 6 other directions that hold the quotation. None has a cosine of more than 0.2 with
            the network's. They are all that is left: with the network's direction and these removed, a probe fitted to
            other texts is right about at most 80 % of new ones.
        "random": [m, d], at least 20 random directions, each to be removed by itself. None has a cosine of more than
            0.9 with the network's direction.
        "effect_direction", "effect_others", "effect_both", "effect_random": Each the mean over texts of a removal's
            effect, and the half-width of its 95 % interval: of the network's direction; of the others; of all of them
            together; and of the random directions, averaged over them for each text.
        "effect_number": The same of removing all of them together, with the lead of the right *number* in place of the
            tense's. Its mean is at most a fifth of the number's lead: you take out the quotation, and not whatever
            there is.
        "verdict": A removal *hits* if its interval lies above half the mean lead of the right tense with nothing
            removed, and *misses* if below. "used" if the direction hits; "not used" if it misses and the others hit;
            "one of several" if both miss, and all of them together hit; "undecided" in all other cases.
    """
    network = planted_network(seed)

    def states(tokens: torch.Tensor) -> torch.Tensor:
        return run_with_cache(network, tokens, ["hook_state"])[1]["hook_state"]

    found_on, texts = planted_texts(600, 2 * seed), planted_texts(200, 2 * seed + 1)
    direction = network.direction[None]
    x = project_out(states(found_on), direction, about=states(found_on).mean(0))
    others = mass_mean_probe(x, inside(found_on)).direction[None]
    random = torch.randn(20, direction.shape[1], generator=torch.Generator().manual_seed(seed))
    mean, intact = states(texts).mean(0), leads(network(texts), texts)

    def effect(directions: torch.Tensor) -> torch.Tensor:
        """On the tense and on the number, for each text."""
        logits = run_with_hooks(network, texts, [("hook_state", lambda x: project_out(x, directions, about=mean))])
        return intact - leads(logits, texts)

    everything = torch.cat([direction, others])
    found = {
        "effect_direction": effect(direction)[0],
        "effect_others": effect(others)[0],
        "effect_both": effect(everything)[0],
        "effect_random": torch.stack([effect(one[None])[0] for one in random]).mean(0),
        "effect_number": effect(everything)[1],
    }
    reported = {name: estimate(values.tolist()) for name, values in found.items()}
    half = intact[0].mean().item() / 2

    def hits(name: str) -> bool | None:
        value, width = reported[name]
        return None if abs(value - half) <= width else value > half

    pattern = tuple(hits(f"effect_{name}") for name in ("direction", "others", "both"))
    verdict = "undecided"
    if pattern[0]:
        verdict = "used"
    elif pattern[:2] == (False, True):
        verdict = "not used"
    elif pattern == (False, False, True):
        verdict = "one of several"
    return {"texts": texts, "others": others, "random": random, **reported, "verdict": verdict}
