"""The influence of directions against a closed form, and the causal basis against the eigenvectors it must approach."""

import torch

from utils.lenses.directions import causal_basis, direction_influence


def linear(seed, d_model, d_vocab, scale):
    generator = torch.Generator().manual_seed(seed)
    weights = scale * torch.randn(d_model, d_vocab, generator=generator, dtype=torch.float64)
    return weights, (lambda resid: resid @ weights)


def test_small_influence_is_half_the_fisher_length():
    """KL(softmax(z) || softmax(z + e)) = var_p(e) / 2 + O(e³)."""
    weights, read = linear(0, 6, 9, 1e-3)
    resid = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v = torch.randn(6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    v = v / v.norm()
    along = resid @ v
    moved = (along - along.mean())[:, None] * (v @ weights)
    p = read(resid).softmax(-1)
    variance = (p * moved.square()).sum(-1) - (p * moved).sum(-1).square()
    found = direction_influence(read, resid, v[None])[0]
    torch.testing.assert_close(found, variance.mean() / 2, rtol=1e-2, atol=0)


def test_orthogonal_directions_are_left_alone():
    _, read = linear(3, 5, 7, 1.0)
    resid = torch.randn(20, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    seen = []

    def watching(x):
        seen.append(x)
        return read(x)

    v = torch.tensor([[0.0, 3.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    direction_influence(watching, resid, v)
    intact, ablated = seen
    torch.testing.assert_close(ablated[:, [0, 2, 3, 4]], intact[:, [0, 2, 3, 4]])
    torch.testing.assert_close(ablated[:, 1], intact[:, 1].mean().expand(20))


def test_basis_approaches_the_eigenvectors_of_the_quadratic_form():
    """White streams and small logits: influence is v' W (I/n - 11'/n²) W' v / 2, maximised by eigenvectors."""
    weights, read = linear(5, 5, 8, 1e-2)
    raw = torch.randn(4000, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    raw = raw - raw.mean(0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / len(raw))).T
    centred = weights - weights.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    generator = torch.Generator().manual_seed(7)
    basis = causal_basis(lambda x: read(x), white, 2, n_steps=300, lr=0.05, generator=generator)
    cosines = (basis * vectors.T[[-1, -2]]).sum(-1).abs()
    assert (cosines > 0.99).all()
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-10)


def test_neither_length_nor_range_of_the_dtype_matters():
    weights, read = linear(8, 4, 6, 1.0)
    resid = torch.randn(9, 4, generator=torch.Generator().manual_seed(9))
    direction = torch.randn(1, 4, generator=torch.Generator().manual_seed(10))
    weights = weights.float()
    expected = direction_influence(lambda x: x @ weights, resid, direction)
    for size in (1e-38, 1e-25, 1e19, 1e37):
        found = direction_influence(lambda x: x @ weights, resid, size * direction)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_search_works_where_gradients_are_switched_off():
    _, read = linear(11, 4, 6, 1.0)
    resid = torch.randn(9, 4, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    settings = {"n_steps": 5, "generator": torch.Generator().manual_seed(13)}
    expected = causal_basis(read, resid, 2, **settings)
    settings["generator"].manual_seed(13)
    with torch.no_grad():
        torch.testing.assert_close(causal_basis(read, resid, 2, **settings), expected)
