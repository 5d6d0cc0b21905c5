"""The lenses against the tuned-lens library (Belrose et al.), on a small GPT-2 with random weights."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from tuned_lens import TunedLens as LibraryLens
from tuned_lens.causal.subspaces import extract_causal_bases, remove_subspace
from tuned_lens.nn.lenses import LogitLens
from tuned_lens.stats.distance import kl_divergence

from utils.lenses.directions import causal_basis, direction_influence
from utils.lenses.measures import lens_kl
from utils.lenses.stream import logit_lens, residual_stack
from utils.lenses.tuned import TunedLens
from utils.models.hooked import hooked_transformer, load_gpt2_small
from utils.models.tokenizer import save_tokenizer

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """The same random weights in both libraries' classes, and the streams of some texts [site, batch, pos, d_model]."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = GPT2LMHeadModel(
            GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=3, n_head=2, initializer_range=0.5)
        ).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("gpt2")
    theirs.save_pretrained(folder)
    save_tokenizer(folder)
    cfg, state, _ = load_gpt2_small(str(folder))
    ours = hooked_transformer(cfg, state)
    tokens = torch.randint(40, (6, 12), generator=torch.Generator().manual_seed(1))
    return theirs, ours, tokens, residual_stack(ours, tokens)


def test_the_sites_and_the_logit_lens(gpt2):
    """transformers' last hidden state is normed already; all before it are the stream at our sites."""
    theirs, ours, tokens, stack = gpt2
    with torch.no_grad():
        hidden = theirs(tokens, output_hidden_states=True).hidden_states
        lens = LogitLens.from_model(theirs)
        for site, state in enumerate(hidden[:-1]):
            torch.testing.assert_close(stack[site], state, **CLOSE)
            torch.testing.assert_close(logit_lens(ours, stack[site]), lens(state, site), **CLOSE)


def test_a_tuned_lens_with_the_same_translators(gpt2):
    theirs, ours, _, stack = gpt2
    generator, lens, library = torch.Generator().manual_seed(2), TunedLens(3, 16), LibraryLens.from_model(theirs)
    with torch.no_grad():
        for site, translator in enumerate(library):
            for parameter in (lens.A, lens.b):
                parameter[site].normal_(std=0.3, generator=generator)
            translator.weight.copy_(lens.A[site].T)
            translator.bias.copy_(lens.b[site])
        read = logit_lens(ours, lens(stack[:-1]))
        for site in range(3):
            torch.testing.assert_close(read[site], library(stack[site], site), **CLOSE)
        expected = kl_divergence(read[0], read[1])
        torch.testing.assert_close(lens_kl(read[1], read[0]), expected, **CLOSE)


def test_the_influence_of_a_direction(gpt2):
    theirs, ours, _, stack = gpt2
    lens, directions = LogitLens.from_model(theirs), torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = direction_influence(lambda resid: logit_lens(ours, resid), stack[1], directions)
        for influence, direction in zip(found, directions, strict=True):
            ablated = remove_subspace(stack[1], direction, mode="mean")
            torch.testing.assert_close(influence, kl_divergence(lens(stack[1], 1), lens(ablated, 1)).mean(), **CLOSE)


def test_a_causal_basis(gpt2):
    """They climb with L-BFGS from the unembedding's directions, we with Adam from random ones."""
    theirs, ours, _, stack = gpt2
    expected = next(iter(extract_causal_bases(LogitLens.from_model(theirs), stack[[1, -1]].unbind(), 2)))

    def read(resid):
        return logit_lens(ours, resid)

    basis = causal_basis(read, stack[1], 2, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        influence = direction_influence(read, stack[1], basis)
    torch.testing.assert_close(influence, expected.energies, atol=0, rtol=0.01)
    assert ((basis @ expected.vectors).diagonal().abs() > 0.99).all()
