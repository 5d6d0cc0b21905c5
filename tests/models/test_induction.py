"""The induction recipe: two layers learn to continue repeats all at once, one layer doesn't; the scores are right."""

import pytest
import torch

from utils.models.hooked import hooked_transformer
from utils.models.induction import (
    attention_patterns,
    induction_config,
    measure_induction,
    repeated_sequences,
    train_induction,
)
from utils.models.network import Network


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(11)


def random_network(rng, n_layers=2):
    network = Network(induction_config(n_layers), rng)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return network


def test_sequences_repeat_their_beginning(rng):
    tokens, period = repeated_sequences(200, rng)
    assert tokens.shape == (200, 48) and set(period.tolist()) == set(range(6, 25))
    assert set(tokens.unique().tolist()) == set(range(64))
    for row, n in zip(tokens.tolist(), period.tolist(), strict=True):
        assert row[n:] == row[:-n]


def test_patterns_and_loss_are_those_of_the_hooked_model(rng):
    network = random_network(rng)
    tokens, period = repeated_sequences(5, rng)
    hooked = hooked_transformer(network.cfg, network.standard_state())
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(tokens)
        patterns = attention_patterns(network, tokens)
    for layer in range(2):
        torch.testing.assert_close(patterns[layer], cache["pattern", layer].transpose(0, 1), atol=1e-5, rtol=1e-4)
    log_probs = logits.log_softmax(dim=-1)
    losses = [
        -log_probs[b, i, tokens[b, i + 1]] for b in range(5) for i in range(47) if i >= period[b]
    ]  # token i has come before, so token i + 1 is no surprise
    loss, _, _ = measure_induction(network, tokens, period)
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_scores_are_the_attention_that_they_say(rng):
    network = random_network(rng)
    tokens, period = repeated_sequences(4, rng)
    _, previous_token, induction = measure_induction(network, tokens, period)
    pattern = attention_patterns(network, tokens).detach()[1, 3]  # [batch, query, key] of head 1.3
    to_previous = [pattern[b, i, i - 1] for b in range(4) for i in range(1, 48)]
    after_copies = [
        sum(pattern[b, i, copy + 1] for copy in range(i) if (i - copy) % period[b].item() == 0)
        for b in range(4)
        for i in range(period[b], 48)
    ]
    assert previous_token.shape == induction.shape == (2, 4)
    assert previous_token[1, 3].item() == pytest.approx(torch.stack(to_previous).mean().item(), rel=1e-4)
    assert induction[1, 3].item() == pytest.approx(torch.stack(after_copies).mean().item(), rel=1e-4)


def test_training_depends_on_the_seed_alone():
    state = torch.get_rng_state()
    one = train_induction(1, n_steps=3, measure_every=2)
    assert torch.equal(torch.get_rng_state(), state)
    again, other = train_induction(1, n_steps=3, measure_every=2), train_induction(2, n_steps=3, measure_every=2)
    assert one.steps.tolist() == [0, 2, 3]
    assert one.previous_token.shape == one.induction.shape == (3, 2, 4)
    assert torch.equal(one.loss, again.loss) and torch.equal(one.induction, again.induction)
    assert not torch.equal(one.loss, other.loss)


def test_measuring_does_not_change_the_run():
    often, seldom = train_induction(1, n_steps=4, measure_every=1), train_induction(1, n_steps=4, measure_every=4)
    assert torch.equal(often.state["embed.W_E"], seldom.state["embed.W_E"])
    assert torch.equal(often.loss[[0, 4]], seldom.loss)


def test_the_result_loads_as_a_hooked_model_without_mlps():
    run = train_induction(0, n_layers=1, n_steps=1)
    hooked = hooked_transformer(run.cfg, run.state)
    assert hooked.cfg.attn_only and not any("mlp" in name or "ln2" in name for name in hooked.state_dict())
    assert hooked(torch.zeros(1, 48, dtype=torch.long)).shape == (1, 48, 64)


@pytest.mark.parametrize("argument", ["n_layers", "n_steps", "measure_every"])
def test_numbers_below_one_are_refused(argument):
    with pytest.raises(ValueError, match=f"at least 1, got .*{argument}=0"):
        train_induction(0, **{argument: 0})


def test_two_layers_change_phase():
    run = train_induction(2, n_steps=150, measure_every=25)
    early, late = (run.steps == 50).nonzero().item(), -1
    assert run.loss[early] > 3.0 and run.loss[late] < 1.0
    assert run.previous_token[early].max() < 0.15 and run.previous_token[late].max() > 0.25
    assert run.induction[early].max() < 0.15 and run.induction[late].max() > 0.6
    # The head that reads the previous token comes first in the network, the one that uses it second.
    assert run.previous_token[late].amax(dim=1).argmax() == 0 and run.induction[late].amax(dim=1).argmax() == 1
    # Much of the way down takes a third of the time.
    falls = run.loss[:-2] - run.loss[2:]
    assert falls.max() > 0.4 * (run.loss[0] - run.loss[late])


def test_one_layer_does_not():
    run = train_induction(2, n_layers=1, n_steps=150, measure_every=150)
    assert run.loss[-1] > 2.0
    assert run.induction[-1].max() < 0.2
