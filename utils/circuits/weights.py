"""What a head's weights say without any text: whether it copies, and which heads read what others write."""

import torch
from jaxtyping import Float
from torch import Tensor


def ov_copying_score(
    embed: Float[Tensor, "d_vocab d_model"],
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
) -> Float[Tensor, ""]:
    """Whether a head raises the logit of the token that it attends to: the eigenvalues of its OV circuit, summed.

    The circuit C = embed W_V W_O W_U [d_vocab, d_vocab] says what attending to token i adds to the logit of token j.
    The score is the sum of its eigenvalues' real parts over the sum of their absolute values: 1 if every token is
    copied, -1 if every token is suppressed, about 0 if neither prevails.

    C has at most d_head eigenvalues that are not 0, those of the small matrix W_O W_U embed W_V [d_head, d_head]: A B
    and B A have the same ones.

    Args:
        embed: What the head reads of each token.
        W_V, W_O: The head's matrices.
        W_U: The unembedding.

    Returns:
        A number from -1 to 1.

    Source: Elhage et al. (2021), section "Summarizing OV/QK Matrices", which has the sum itself where we have the sum
    of the real parts; the two are equal, as complex eigenvalues come in pairs.
    """
    values = torch.linalg.eigvals((W_O @ W_U) @ (embed @ W_V))
    return values.real.sum() / values.abs().sum()


def composition_score(
    writer_OV: Float[Tensor, "d_model d_model"], reader: Float[Tensor, "d_model d_model"], kind: str
) -> Float[Tensor, ""]:
    """How much of what an earlier head writes is read by a later one: |product| / (|first| |second|).

    The course's vectors are rows: the writer turns x into x W_OV, and the reader's score for query x and key y is
    x W_QK y^T. So x W_OV W_QK y^T is a score whose query was written by the earlier head, x W_QK (y W_OV)^T one whose
    key was, and x W_OV W_OV' a value that passes both heads. |.| is the Frobenius norm.

    Args:
        writer_OV: W_V W_O of the earlier head.
        reader: Of the later head W_QK = W_Q W_K^T for "Q" and "K", its W_OV for "V".
        kind: "Q", "K" or "V".

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: If ``kind`` is another one.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", on two-layer models.
    """
    products = {"Q": writer_OV @ reader, "K": reader @ writer_OV.T, "V": writer_OV @ reader}
    if kind not in products:
        raise ValueError(f'kind must be "Q", "K" or "V", got {kind!r}')
    return products[kind].norm() / (writer_OV.norm() * reader.norm())
