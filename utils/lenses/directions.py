"""Which directions of the stream a reader depends on: a lens's directions, and those that the model itself uses."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from utils.lenses.measures import lens_kl


def direction_influence(
    read: Callable[[Tensor], Tensor],
    resid: Float[Tensor, "*batch d_model"],
    directions: Float[Tensor, "n d_model"],
) -> Float[Tensor, "n"]:
    """How much what is read changes when one direction of the stream stops varying.

    For each direction, every vector's coordinate along it is replaced by the mean of these coordinates over all of
    ``resid``; what is orthogonal to it stays. The influence is the mean over all vectors of
    KL(read(resid) || read(ablated)).

    Args:
        read: Takes a stream of ``resid``'s shape to logits [*batch, d_vocab]: a lens, or the rest of the model.
        resid: The stream at one site.
        directions: One direction each row, of any length but zero: neither length nor sign matters.

    Returns:
        Influence in nats, one for each direction; each is ablated alone. It carries a graph: gradients flow to
        ``directions``.

    Raises:
        ValueError: If one of ``directions`` is zero.

    Source: Belrose et al. (2023), "Eliciting Latent Predictions from Transformers with the Tuned Lens", on causal
    basis extraction.
    """
    largest = directions.detach().abs().amax(dim=-1, keepdim=True)
    if bool((largest == 0).any()):
        raise ValueError("one of directions is zero")
    directions = directions / largest  # squares of very short or long vectors would leave the range of their dtype
    before, found = read(resid), []
    for unit in directions / directions.norm(dim=-1, keepdim=True):
        along = resid @ unit
        ablated = resid - (along - along.mean()).unsqueeze(-1) * unit
        found.append(lens_kl(read(ablated), before).mean())
    return torch.stack(found)


def causal_basis(
    read: Callable[[Tensor], Tensor],
    resid: Float[Tensor, "*batch d_model"],
    n_directions: int,
    *,
    n_steps: int = 100,
    lr: float = 0.1,
    generator: torch.Generator,
) -> Float[Tensor, "n_directions d_model"]:
    """Directions that a reader depends on, found greedily: one after the other, each the best that is left.

    Direction k is the unit vector, orthogonal to those before it, whose influence (``direction_influence``) is
    largest. Each has a search of its own, which begins when those before it are done: ``n_steps`` steps of
    ``torch.optim.Adam`` uphill from a random start, with one gradient for each step. A search may end on a lower hill,
    so that influences need not fall from each direction to the next.

    Args:
        read: Takes a stream of ``resid``'s shape to logits; differentiable.
        resid: The stream at one site.
        n_directions: How many, at most d_model.
        n_steps: Steps for each direction.
        lr: Adam's learning rate; starts have length 1.
        generator: Draws the starts, with the dtype of ``resid``.

    Returns:
        Orthonormal directions with the dtype of ``resid``, in the order in which they were found, detached from the
        graph.

    Raises:
        ValueError: If ``n_directions`` is not between 1 and d_model.

    Source: Belrose et al. (2023), on causal basis extraction.
    """
    d_model = resid.shape[-1]
    if not 1 <= n_directions <= d_model:
        raise ValueError(f"n_directions must be between 1 and {d_model}, got {n_directions}")
    resid = resid.detach()
    basis = resid.new_zeros(0, d_model)
    for _ in range(n_directions):
        start = torch.randn(d_model, generator=generator, dtype=resid.dtype).to(resid.device)
        start = start - (basis @ start) @ basis
        vector = (start / start.norm()).requires_grad_()
        optimizer = torch.optim.Adam([vector], lr=lr)
        for _ in range(n_steps):
            with torch.enable_grad():  # also where the caller has switched gradients off
                free = vector - (basis @ vector) @ basis
                influence = direction_influence(read, resid, free[None])[0]
                [vector.grad] = torch.autograd.grad(-influence, [vector])
            optimizer.step()
        free = vector.detach() - (basis @ vector.detach()) @ basis
        free = free - (basis @ free) @ basis  # once more, as the first projection leaves rounding
        basis = torch.cat([basis, (free / free.norm())[None]])
    return basis
