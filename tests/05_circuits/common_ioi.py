"""What the checks of part 05b share: small models with random weights, and prompts for them."""

import torch

from utils.circuits.ioi import FIRST, GIVER, SECOND, ioi_dataset
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.models.network import Network

SIZES = (
    {"d_model": 12, "n_layers": 3, "n_heads": 2, "d_head": 5, "d_mlp": 9},
    {"d_model": 10, "n_layers": 2, "n_heads": 3, "d_head": 4, "d_mlp": 7},
)
WORDS, NAMES = torch.arange(1, 12), torch.arange(12, 23)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def small_model(rng, scale=0.6, **sizes):
    """A ``HookedTransformer`` with random weights everywhere, biases and norms included, in which parts matter."""
    cfg = TransformerConfig(n_ctx=12, d_vocab=23, **sizes)
    shapes = {name: value.shape for name, value in Network(cfg, torch.Generator()).standard_state().items()}
    state = {name: scale * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    model = hooked_transformer(cfg, state)
    return model.requires_grad_(False)


def templates(rng, lengths=(8, 10, 9)):
    """Random words with the three places; the giver stands behind the two who are met, and never at the end."""
    found = []
    for length in lengths:
        row = WORDS[torch.randint(len(WORDS), (length,), generator=rng)]
        row[0] = 0
        opening = 1 + torch.randperm(length - 5, generator=rng)[:2].sort().values
        row[opening[0]], row[opening[1]] = FIRST, SECOND
        row[int(torch.randint(int(opening[1]) + 1, length - 1, (), generator=rng))] = GIVER
        found.append(row)
    return found


def scenes(rng, scale=0.6):
    """Two models of other sizes, each with prompts of several lengths."""
    for i, sizes in enumerate(SIZES):
        model = small_model(rng, scale, **sizes)
        yield model, *ioi_dataset(templates(rng), NAMES, 6 + i, rng)


def all_heads(model):
    return [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
