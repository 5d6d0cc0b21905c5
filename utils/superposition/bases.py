"""Whether a layer's coordinates are special: weights in another basis, and what single coordinates look like."""

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from utils.models.config import TransformerConfig
from utils.transformer.weights import fold_layer_norm


def random_rotation(d: int, seed: int, *, keep_ones: bool = False) -> Float[Tensor, "d d"]:
    """An orthogonal matrix, each as likely as any other.

    Args:
        d: Its size.
        seed: Of the draw.
        keep_ones: Draw among those that leave the vector of ones where it is: only what is at right angles to it turns.

    Source: Mezzadri (2007), "How to Generate Random Matrices from the Classical Compact Groups".
    """
    generator = torch.Generator().manual_seed(seed)
    size = d - 1 if keep_ones else d
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    q = q * r.diagonal().sign()
    if keep_ones:
        ones_first = torch.linalg.qr(torch.cat([torch.ones(d, 1, dtype=torch.float64), torch.eye(d)[:, 1:]], dim=1)).Q
        q = ones_first @ torch.block_diag(torch.ones(1, 1, dtype=torch.float64), q) @ ones_first.T
    return q.float()


def rotate_basis(
    state: dict[str, Float[Tensor, "..."]],
    cfg: TransformerConfig,
    rotation: Float[Tensor, "d_model d_model"],
) -> dict[str, Float[Tensor, "..."]]:
    """The weights of a transformer that computes the same, and whose residual stream is turned.

    Where the old stream is the row vector x, the new one is x @ rotation. First the scales and shifts of the layer
    norms are moved into the weights behind them (``fold_layer_norm``), so that x is what this makes of the model. Then
    what writes into the stream (W_E, W_pos, W_O, b_O, W_out, b_out) is turned, and what reads from it (W_Q, W_K, W_V,
    W_in, W_U) is turned so that it finds what it found. All else stays: b_Q, b_K, b_V, b_in, b_U live elsewhere.

    A layer norm subtracts the mean of the coordinates. That is the same before and after turning only if the vector of
    ones is turned into itself or its opposite.

    Args:
        state: A ``Transformer``'s state dict, with names such as ``blocks.0.attn.W_Q`` [head, d_model, d_head],
            ``blocks.0.attn.W_O`` [head, d_head, d_model] and ``unembed.W_U`` [d_model, d_vocab]; left unchanged. What
            it holds beside the weights above and the layer norms' is handed on.
        cfg: Its sizes. Where ``cfg.d_mlp`` is 0 there is no W_in, b_in, W_out or b_out.
        rotation: An orthogonal matrix of the weights' dtype; a reflection is one, too.

    Returns:
        A new state dict with the same names, shapes and dtypes, and layer norms with w = 1 and b = 0.

    Raises:
        ValueError: If an entry of rotation @ rotation.T is further than 1e-3 from the identity's, or an entry of
            ones @ rotation further than 1e-3 from 1, and one further than 1e-3 from -1.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", on privileged bases.
    """
    # Given: what is no rotation, or one that the layer norms would notice, is refused.
    turned_ones = rotation.sum(dim=0)
    if (rotation @ rotation.T - torch.eye(len(rotation), dtype=rotation.dtype)).abs().max() > 1e-3:
        raise ValueError("rotation is not orthogonal")
    if min((turned_ones - 1).abs().max(), (turned_ones + 1).abs().max()) > 1e-3:
        raise ValueError("rotation moves the vector of ones, along which layer norms subtract the mean")
    # Yours: fold, then turn.
    state = fold_layer_norm(state, cfg)
    writers, readers = ["embed.W_E", "pos_embed.W_pos"], ["unembed.W_U"]
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        writers += [f"{block}.attn.W_O", f"{block}.attn.b_O"]
        readers += [f"{block}.attn.W_{x}" for x in "QKV"]
        if cfg.d_mlp:
            writers += [f"{block}.mlp.W_out", f"{block}.mlp.b_out"]
            readers.append(f"{block}.mlp.W_in")
    for name in writers:
        state[name] = state[name] @ rotation
    for name in readers:
        state[name] = einsum(rotation, state[name], "old new, ... old out -> ... new out")
    return state


def coordinate_kurtosis(activations: Float[Tensor, "sample unit"]) -> Float[Tensor, " unit"]:
    """How heavy the tails of each unit's activations are.

    The mean fourth power of the deviations from the unit's mean, over the square of their mean square. Both means are
    over the samples (divided by their number). A normal distribution has 3, a coin 1; what is nearly always near one
    value and now and then far from it has much more.

    Args:
        activations: At least 2 samples.

    Returns:
        A number of at least 1 for each unit; NaN for a unit that is 0 in all samples. For one that has another value in
        all of them it is left open, as rounding may give it some spread.

    Raises:
        ValueError: If there are fewer than 2 samples.

    Source: Elhage et al. (2023), "Privileged Bases in the Transformer Residual Stream", where it is the measure.
    """
    if len(activations) < 2:
        raise ValueError(f"at least 2 samples are needed, got {len(activations)}")
    squares = (activations - activations.mean(dim=0)).square()
    return squares.square().mean(dim=0) / squares.mean(dim=0).square()


def neuron_selectivity(
    activations: Float[Tensor, "token unit"], classes: Int[Tensor, " token"], n_top: int
) -> Float[Tensor, " unit"]:
    """To how many classes of token each unit answers most: 1 if its top activations are all of one class.

    Of the ``n_top`` tokens on which the unit's activation is largest (not largest in size: a large negative number is
    small), class c has a share p_c. The effective number of classes is 1 / sum of p_c², also called the inverse Simpson
    index: m classes with equal shares give m, and rare ones count little.

    Args:
        activations: What the units say to each token.
        classes: A class for each token: whole numbers of at least 0, not necessarily all of them in use.
        n_top: How many tokens of each unit to look at. Which of several equal activations are taken is left open.

    Returns:
        A number from 1 to the number of classes for each unit, of the dtype of ``activations``.

    Raises:
        ValueError: If ``n_top`` is smaller than 1 or larger than the number of tokens.

    Source: Simpson (1949), "Measurement of Diversity", for the index; that it is taken here is our choice.
    """
    if not 1 <= n_top <= len(activations):
        raise ValueError(f"n_top must be from 1 to {len(activations)}, got {n_top}")
    top = classes[activations.topk(n_top, dim=0).indices]  # [n_top, unit]
    shares = torch.nn.functional.one_hot(top.long()).to(activations.dtype).mean(dim=0)  # [unit, class]
    return 1 / shares.square().sum(dim=-1)
