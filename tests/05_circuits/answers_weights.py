"""Wrong answers for copying and composition, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong

# ov_copying_score


def circuit(embed, W_V, W_O, W_U):
    return embed @ W_V @ W_O @ W_U


@wrong(
    "ov_copying_score",
    "You divide by the absolute value of the sum instead of the sum of the absolute values: the result is always 1 "
    "or -1.",
)
def absolute_value_of_the_sum(embed, W_V, W_O, W_U):
    values = torch.linalg.eigvals(W_O @ W_U @ embed @ W_V)
    return values.real.sum() / values.sum().abs()


@wrong(
    "ov_copying_score",
    "You divide by the sum of the real parts' absolute values. An eigenvalue that only turns (a purely imaginary one) "
    "copies nothing, and has to count below the line as much as any other.",
)
def real_parts_below(embed, W_V, W_O, W_U):
    values = torch.linalg.eigvals(W_O @ W_U @ embed @ W_V).real
    return values.sum() / values.abs().sum()


@wrong(
    "ov_copying_score",
    "You take singular values below the line. They measure stretching, in whatever direction; the score compares "
    "eigenvalues with eigenvalues.",
)
def singular_values(embed, W_V, W_O, W_U):
    C = circuit(embed, W_V, W_O, W_U)
    return torch.diagonal(C).sum() / torch.linalg.svdvals(C).sum()


@wrong(
    "ov_copying_score",
    "You leave out embedding and unembedding: whether W_V W_O keeps a direction of the stream is another question than "
    "whether a token's own logit rises.",
)
def without_the_ends(embed, W_V, W_O, W_U):
    values = torch.linalg.eigvals(W_O @ W_V)
    return values.real.sum() / values.abs().sum()


@wrong("ov_copying_score", "You count eigenvalues with a positive real part; how large they are should matter.")
def counted(embed, W_V, W_O, W_U):
    values = torch.linalg.eigvals(W_O @ W_U @ embed @ W_V).real
    return values.sign().mean()


@wrong(
    "ov_copying_score",
    "You average the circuit's diagonal over its largest entry. A head that raises all tokens alike has a positive "
    "diagonal, too: eigenvalues tell the two apart.",
)
def diagonal(embed, W_V, W_O, W_U):
    C = circuit(embed, W_V, W_O, W_U)
    return torch.diagonal(C).mean() / C.abs().max()


@wrong(
    "ov_copying_score",
    "You compare the circuit's diagonal with the sum of its own absolute values. What a token does to the others has "
    "no say in that. Eigenvalues take the whole circuit in: their sum is that of the diagonal, the sum of their "
    "absolute values is not.",
)
def diagonal_alone(embed, W_V, W_O, W_U):
    entries = circuit(embed, W_V, W_O, W_U).diagonal()
    return entries.sum() / entries.abs().sum()


@right("ov_copying_score")
def the_large_matrix(embed, W_V, W_O, W_U):
    C = embed @ (W_V @ W_O) @ W_U
    return torch.trace(C) / torch.linalg.eigvals(C).abs().sum()


# composition_score

KINDS = ("Q", "K", "V")


def score_of(product, writer_OV, reader, kind):
    if kind not in KINDS:
        raise ValueError("kind")
    return product.norm() / (writer_OV.norm() * reader.norm())


@wrong(
    "composition_score",
    "For K you multiply on the query's side, as for Q. The key is the second argument of x W_QK y^T: what was written "
    "meets W_QK from the right, transposed.",
)
def key_as_query(writer_OV, reader, kind):
    return score_of(writer_OV @ reader, writer_OV, reader, kind)


@wrong(
    "composition_score",
    "Your K-composition lacks the transpose: W_QK W_OV feeds the key what the earlier head reads, not what it writes.",
)
def no_transpose(writer_OV, reader, kind):
    return score_of(reader @ writer_OV if kind == "K" else writer_OV @ reader, writer_OV, reader, kind)


@wrong(
    "composition_score",
    "Your K-composition is the size of W_OV^T W_QK: what was written meets W_QK on the query's side. The key is the "
    "second argument of x W_QK y^T, so it comes from the right.",
)
def key_from_the_left(writer_OV, reader, kind):
    return score_of(writer_OV.T @ reader if kind == "K" else writer_OV @ reader, writer_OV, reader, kind)


@wrong(
    "composition_score",
    "Your products are the paper's, whose vectors are columns. The course's are rows: they pass the earlier head's "
    "matrix first, so it comes first for Q and V; for K it comes last, transposed.",
)
def column_vectors(writer_OV, reader, kind):
    return score_of((reader.T if kind == "Q" else reader) @ writer_OV, writer_OV, reader, kind)


@wrong(
    "composition_score",
    "For Q and V the later head's matrix comes first in your products, and the course's vectors are rows: they pass "
    "the earlier head's first. Your K is another one than W_QK W_OV^T, too.",
)
def later_head_first(writer_OV, reader, kind):
    product = reader.T @ writer_OV if kind == "K" else reader @ writer_OV
    return score_of(product, writer_OV, reader, kind)


@wrong(
    "composition_score",
    "For Q and V the later head's matrix comes first in your products. The course's vectors are rows: they pass the "
    "earlier head's first.",
)
def later_head_first_but_for_keys(writer_OV, reader, kind):
    product = reader @ writer_OV.T if kind == "K" else reader @ writer_OV
    return score_of(product, writer_OV, reader, kind)


@wrong(
    "composition_score",
    "For Q you multiply W_QK W_OV: the later head's matrix comes first. A query is a row, which passes the earlier "
    "head's first.",
)
def query_reversed(writer_OV, reader, kind):
    product = {"Q": reader @ writer_OV, "K": reader @ writer_OV.T, "V": writer_OV @ reader}
    return score_of(product.get(kind, reader), writer_OV, reader, kind)


@wrong(
    "composition_score",
    "For V the later head's matrix comes first in your product. A value is a row, which passes the earlier head's "
    "first.",
)
def value_reversed(writer_OV, reader, kind):
    product = {"Q": writer_OV @ reader, "K": reader @ writer_OV.T, "V": reader @ writer_OV}
    return score_of(product.get(kind, reader), writer_OV, reader, kind)


@wrong("composition_score", "You do not divide by the two matrices' norms: large weights would look like composition.")
def not_divided(writer_OV, reader, kind):
    if kind not in KINDS:
        raise ValueError("kind")
    return (reader @ writer_OV.T if kind == "K" else writer_OV @ reader).norm()


@wrong(
    "composition_score",
    "You take the largest singular value for the norm. The Frobenius norm counts all directions, not just one.",
)
def spectral(writer_OV, reader, kind):
    if kind not in KINDS:
        raise ValueError("kind")
    product = reader @ writer_OV.T if kind == "K" else writer_OV @ reader
    first, *both = (torch.linalg.matrix_norm(x, 2) for x in (product, writer_OV, reader))
    return first / (both[0] * both[1])


@wrong("composition_score", "Your score is squared.")
def squared(writer_OV, reader, kind):
    product = reader @ writer_OV.T if kind == "K" else writer_OV @ reader
    return score_of(product, writer_OV, reader, kind) ** 2


@right("composition_score")
def with_einsum(writer_OV, reader, kind):
    sides = {"Q": "im,mj->ij", "V": "im,mj->ij", "K": "im,jm->ij"}
    if kind not in sides:
        raise ValueError(kind)
    product = torch.einsum(sides[kind], writer_OV, reader)
    sizes = [x.square().sum().sqrt() for x in (product, writer_OV, reader)]
    return sizes[0] / sizes[1] / sizes[2]
