"""What part 08c says of SmolLM2-135M's dictionary, measured again on other texts, with 4-bit weights."""

import random

import torch

from utils.sae.explain import applies, detection_score, explain_feature
from utils.sae.shipped import load_dictionary
from utils.sae.texts import peoples_rows
from utils.sae.topk import TopKSAE


def test_rules_score_little_more_for_latents_than_for_random_directions(smollm2):
    sae = load_dictionary("smollm2-135m")
    rows = peoples_rows(smollm2.tokenizer, 128, held_out=True)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:20]]
    layer = int(sae.site.split(".")[1])
    with torch.no_grad():
        x = torch.cat([
            smollm2.run_with_cache(part, names_filter=sae.site, stop_at_layer=layer + 1)[1][sae.site]
            for part in rows.split(4)
        ])  # fmt: skip
    length = x.norm(dim=-1)
    counts = length < 5 * length.median()
    counts[:, 0] = False
    invented = TopKSAE(x.shape[-1], 2048, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(False)
    invented.b_enc -= x[counts].mean(0) @ invented.W_enc
    mean = {}
    for name, dictionary in (("latents", sae), ("random", invented)):
        on = (dictionary.encode(x) > 0) & counts[..., None]
        often = ((on[:10].sum((0, 1)) >= 10) & (on[10:].sum((0, 1)) >= 10)).nonzero()[:, 0].tolist()
        latents = random.Random(0).sample(often, 50)
        rules = [explain_feature(rows[:10], on[:10, :, latent], {}) for latent in latents]
        for kind, shift in (("rule", 0), ("exchanged", 1)):
            found = [
                detection_score(
                    applies(rules[i - shift], rows[10:], {}).flatten(), on[10:, :, latent].flatten()
                )
                for i, latent in enumerate(latents)
            ]  # fmt: skip
            mean[name, kind] = sum(found) / len(found)
    assert 0.55 < mean["latents", "rule"] < 0.72 and 0.52 < mean["random", "rule"] < 0.66
    assert mean["latents", "rule"] > mean["random", "rule"] - 0.03
    for name in ("latents", "random"):
        assert abs(mean[name, "exchanged"] - 0.5) < 0.05
