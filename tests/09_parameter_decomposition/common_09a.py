"""What the checks, the catalogue and the oracles of part 09a share: small networks with components that don't fit."""

import torch

from utils.spd.components import RankOneComponents

SIZES = ((3, 4, 2, 5, 6), (5, 2, 3, 4, 1), (1, 1, 1, 1, 2))  # d_in, d_mid, d_out, C, batch


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_components(rng, d_in, d_out, C, dtype=torch.float32):
    """Components with random weights."""
    made = RankOneComponents(d_in, d_out, C).to(dtype)
    made.load_state_dict({name: torch.randn(value.shape, generator=rng) for name, value in made.state_dict().items()})
    return made


def network(rng, d_in, d_mid, d_out, C, batch):
    """A network of two matrices and a bias, its weights, components that do not add up to them, and inputs."""
    bias = torch.randn(d_mid, generator=rng)

    def forward(x, linear):
        return linear("second", torch.tanh(linear("first", x) + bias))

    weights = {"first": torch.randn(d_in, d_mid, generator=rng), "second": torch.randn(d_mid, d_out, generator=rng)}
    components = {
        "first": random_components(rng, d_in, d_mid, C), "second": random_components(rng, d_mid, d_out, C + 1)
    }  # fmt: skip
    return forward, weights, components, torch.randn(batch, d_in, generator=rng)


def own_output(forward, weights, x):
    return forward(x, lambda name, a: a @ weights[name])


def random_masks(rng, components, *batch):
    return {name: torch.rand(*batch, c.V.shape[1], generator=rng) for name, c in components.items()}


def parameters_of(components):
    return [q for c in components.values() for q in c.parameters()]
