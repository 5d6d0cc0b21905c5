"""What part 06c says of SmolLM2-135M, measured again on other texts; the figures are those of 4-bit weights."""

import torch
from torch import Generator

from utils.superposition.planted import same_covariance, sparse_codes
from utils.superposition.recovery import compressed_recovery, support_recovered

TEXTS = (
    "The museum keeps letters that sailors wrote home during the long war, and a few of the answers they received.",
    "Water boils at a lower temperature in the mountains, which is why beans take longer to cook there than at sea.",
    "When the train finally arrived, the passengers had already decided to share two taxis and to drive to the coast.",
    "A good proof explains why a statement is true, and does not only show that it can not be false.",
)


def test_the_middle_is_not_made_of_token_embeddings(smollm2):
    rows = smollm2.W_E[280:20_280].detach().clone()
    random = same_covariance(rows, len(rows), Generator().manual_seed(1))
    sites = ["hook_embed", "blocks.0.hook_resid_post", "blocks.15.hook_resid_post"]
    with torch.no_grad():
        caches = [smollm2.run_with_cache(text, names_filter=sites)[1] for text in TEXTS]
    lengths, found = {}, {}
    for site in sites:
        streams = [cache[site][0, 1:] for cache in caches]
        lengths[site] = torch.cat(streams).norm(dim=1).median()
        streams = [x[x.norm(dim=1) < 5 * lengths[site]] for x in streams]
        x = torch.cat(streams)
        x = x - x.mean(0)
        for name, dictionary in (("embeddings", rows), ("random", random)):
            left = x - compressed_recovery(x, dictionary, 16) @ dictionary
            found[site, name] = 1 - (left.square().sum() / x.square().sum()).item()
    assert found["hook_embed", "embeddings"] > 0.85 and 0.35 < found["hook_embed", "random"] < 0.65
    for site in sites[1:]:
        assert 0.2 < found[site, "embeddings"] < 0.4
        assert abs(found[site, "embeddings"] - found[site, "random"]) < 0.03
    assert 10 < lengths[sites[1]] / lengths["hook_embed"] < 22


def test_sums_of_tokens(smollm2):
    rows = smollm2.W_E[280:20_280].detach()
    for k, low, high in ((2, 0.85, 1.0), (8, 0.2, 0.7)):
        codes = sparse_codes(80, len(rows), k, Generator().manual_seed(50))
        share = support_recovered(compressed_recovery(codes @ rows, rows, k), codes).float().mean()
        assert low <= share <= high
