"""What part 09c says of SmolLM2-135M, measured again on other sentences; figures are those of 4-bit weights."""

import torch

from utils.patching.hooks import run_with_cache
from utils.spd.compare import Parts, compare_decompositions, strongest_parts
from utils.spd.course_model import finish, kl_distance

TEXTS = (
    "When the rain stopped at last, the children ran out into the garden and looked for snails under the leaves.",
    "A function that calls itself needs a case in which it stops, or it will never come to an end.",
    "He had forgotten where he had put his keys, and the train was to leave in ten minutes.",
    "Bread is made of flour, water, salt and yeast, and it takes more patience than skill.",
)


def test_sixty_four_neurons_keep_most_of_a_matrix_and_a_rotated_basis_does_not(smollm2):
    W, end = smollm2.blocks[29].mlp.W_out.detach(), finish(smollm2)
    at = ("blocks.29.mlp.hook_post", "blocks.29.hook_resid_mid")
    with torch.no_grad():
        caches = [run_with_cache(smollm2, smollm2.to_tokens(text), list(at))[1] for text in TEXTS]
        neurons, beside = (torch.cat([cache[name][0, 1:] for cache in caches]) for name in at)
        y = neurons @ W
        own = end(beside + y)
        rotation = torch.linalg.qr(torch.randn(len(W), len(W), generator=torch.Generator().manual_seed(1))).Q
        left, sizes, right = torch.linalg.svd(W, full_matrices=False)
        bases = {"neurons": (neurons, W), "singular": (neurons @ left, sizes[:, None] * right)}
        bases["rotated"] = (neurons @ rotation, rotation.T @ W)
        zero = torch.zeros(W.shape[1])
        views = {name: Parts(c, d, zero, strongest_parts(c, d, 64)) for name, (c, d) in bases.items()}
        table = compare_decompositions(
            y, views, lambda other: kl_distance(end(beside + other), own).item(), torch.Generator().manual_seed(0)
        )
        none = kl_distance(end(beside), own).item()
    paid = {name: row["cost"] for name, row in table.items()}
    assert paid["neurons"] < 0.3 * none and paid["neurons"] < 0.6 * paid["singular"] < paid["rotated"]
    assert table["neurons"]["shuffled"] > 2 * paid["neurons"]
