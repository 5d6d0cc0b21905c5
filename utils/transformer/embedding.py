"""From token ids into the residual stream, and from the residual stream to logits."""

from jaxtyping import Float, Int
from torch import Tensor


def embed(
    tokens: Int[Tensor, "batch pos"], W_E: Float[Tensor, "d_vocab d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """Look up each token's vector.

    Args:
        tokens: Token ids from 0 to d_vocab - 1, [batch, pos].
        W_E: Embedding matrix [d_vocab, d_model], one row for each token of the vocabulary.

    Returns:
        Row ``tokens[b, p]`` of ``W_E`` at each [b, p], unscaled, in the dtype of ``W_E``. Gradients flow back to
        ``W_E``, and add up where a token comes more than once.

    Source: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training", section 3.1.
    """
    return W_E[tokens]


def positional_embed(
    tokens: Int[Tensor, "batch pos"], W_pos: Float[Tensor, "n_ctx d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """Look up each position's vector: the same for every sequence of the batch, whatever the tokens are.

    Args:
        tokens: Token ids [batch, pos]; only their shape matters. Positions are counted from 0.
        W_pos: Positional embedding matrix [n_ctx, d_model], one row for each position.

    Returns:
        Row ``p`` of ``W_pos`` at each [b, p], to be added to the token embedding, in the dtype of ``W_pos``.
        Gradients flow back to ``W_pos``.

    Raises:
        ValueError: If the sequences are longer than ``n_ctx``, the number of rows of ``W_pos``.

    Source: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training", section 3.1.
    """
    batch, n_pos = tokens.shape
    n_ctx, d_model = W_pos.shape
    if n_pos > n_ctx:
        raise ValueError(f"a sequence of {n_pos} tokens does not fit into n_ctx = {n_ctx} positions")
    return W_pos[:n_pos].expand(batch, n_pos, d_model)


def unembed(
    resid: Float[Tensor, "batch pos d_model"], W_U: Float[Tensor, "d_model d_vocab"], b_U: Float[Tensor, "d_vocab"]
) -> Float[Tensor, "batch pos d_vocab"]:
    """Read from each residual vector how strongly it speaks for each token.

    Args:
        resid: Final residual stream [batch, pos, d_model], already normalised.
        W_U: Unembedding matrix [d_model, d_vocab], one column for each token of the vocabulary.
        b_U: One number for each token [d_vocab], added to its logit at every position.

    Returns:
        Logits [batch, pos, d_vocab], not probabilities: no softmax here. Their dtype is that of the arguments, and
        gradients flow back to all three.

    Source: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training", section 3.1,
    without its tie (there the unembedding is the embedding transposed) and with a bias.
    """
    return resid @ W_U + b_U
