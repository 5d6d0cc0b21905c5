"""What the checks of part 05c share: small transformers with random weights, prompts, and metrics."""

import torch

from utils.circuits.graph import build_graph
from utils.models.config import PlainConfig, TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.models.network import Network

# Pairwise different sizes; the second has no MLPs.
SIZES = (
    {"d_model": 10, "n_layers": 2, "n_heads": 3, "d_head": 4, "d_mlp": 7, "n_ctx": 6, "d_vocab": 11},
    {"d_model": 7, "n_layers": 3, "n_heads": 1, "d_head": 5, "d_mlp": 0, "n_ctx": 5, "d_vocab": 9},
)
# A few hundred roundings of float32, at logits of a few units.
CLOSE = {"rtol": 1e-3, "atol": 2e-5}


def random_model(rng, sizes, *, plain=False, linear=False):
    """A ``HookedTransformer`` with random weights and biases; ``linear`` has no norms and looks at everything alike."""
    cfg = (PlainConfig if plain or linear else TransformerConfig)(**sizes)
    shapes = Network(TransformerConfig(**sizes), torch.Generator().manual_seed(0)).standard_state()
    state = {}
    for name, value in shapes.items():
        scale = 1.0 if name.startswith(("embed", "pos_embed")) else 1.6 / sizes["d_model"] ** 0.5
        state[name] = scale * torch.randn(value.shape, generator=rng)
        if ".ln" in name and name.endswith(".w") or name == "ln_final.w":
            state[name] = 1 + 0.3 * torch.randn(value.shape, generator=rng)
        if linear and name.endswith(("W_Q", "b_Q")):
            state[name].zero_()
    if isinstance(cfg, PlainConfig):
        state = {name: value for name, value in state.items() if "ln" not in name.split(".")[-2]}
    return hooked_transformer(cfg, state).requires_grad_(False)


def cases(rng, **how):
    """Two models with two sets of prompts of one length, all their edges, and a metric that is not linear."""
    for batch, sizes in zip((3, 2), SIZES, strict=True):
        model = random_model(rng, sizes, **how)
        clean, corrupt = torch.randint(sizes["d_vocab"], (2, batch, sizes["n_ctx"]), generator=rng)
        edges = build_graph(sizes["n_layers"], sizes["n_heads"], mlps=sizes["d_mlp"] > 0)
        yield model, clean, corrupt, edges, random_metric(rng, clean.shape[1], sizes["d_vocab"])


def random_metric(rng, n_pos, d_vocab):
    """Reads all positions and all tokens, as a metric may."""
    weights, shift = torch.randn(n_pos, d_vocab, generator=rng) / d_vocab**0.5, torch.randn((), generator=rng)

    def metric(logits):
        value = torch.einsum("bpv,pv->b", logits, weights.to(logits.dtype))
        return value + 0.3 * (value + shift).tanh()

    return metric


def some_of(edges, rng, n=12):
    """A few edges in another order."""
    return [edges[i] for i in torch.randperm(len(edges), generator=rng)[:n].tolist()]
