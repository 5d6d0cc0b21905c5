"""The training network and loop: the same function as the standard architecture, seeded, and resumable."""

import multiprocessing
import signal
import time
from dataclasses import replace

import pytest
import torch

from utils.models.config import TransformerConfig
from utils.models.course_model import training_documents
from utils.models.hooked import hooked_transformer
from utils.models.network import HeadDropout, Network
from utils.models.training import CHUNK, Recipe, Stage, chunk_seed, make_optimizer, train, train_step
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=8, n_layers=2, n_heads=2, d_head=4, d_mlp=12, n_ctx=96, d_vocab=700)
# Heads are silenced at random, so that the tests on interrupted runs see whether that goes on as it should.
STAGE = Stage(2 * CHUNK, 5e-3, 2 * CHUNK, head_dropout=0.2)
RECIPE = Recipe(CFG, (STAGE,), batch=4, n_warmup=10, checkpoints=(CHUNK,))


@pytest.mark.parametrize("d_mlp", [12, 0])
def test_the_network_is_the_standard_architecture(d_mlp):
    cfg = TransformerConfig(d_model=8, n_layers=2, n_heads=2, d_head=3, d_mlp=d_mlp, n_ctx=7, d_vocab=11)
    generator = torch.Generator().manual_seed(0)
    network = Network(cfg, generator)
    with torch.no_grad():
        for parameter in network.parameters():  # biases and layer norms too
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    tokens = torch.randint(0, 11, (3, 7), generator=generator)
    logits = network(tokens)
    hooked = hooked_transformer(cfg, network.standard_state())
    torch.testing.assert_close(logits, hooked(tokens, prepend_bos=False), atol=2e-5, rtol=1e-5)
    if d_mlp:
        learners = Transformer(cfg)
        learners.load_state_dict(network.standard_state())
        torch.testing.assert_close(logits, learners(tokens), atol=2e-5, rtol=1e-5)


def test_the_seed_fixes_the_initial_weights_and_nothing_global_moves():
    before = torch.get_rng_state()
    first, again, other = (Network(CFG, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.W_E, again.W_E) and not torch.equal(first.W_E, other.W_E)


def test_the_learning_rate_warms_up_and_comes_down():
    rates = [RECIPE.lr(step) for step in range(RECIPE.n_steps)]
    assert rates[0] == pytest.approx(5e-4) and max(rates) == pytest.approx(5e-3, rel=0.02)
    assert rates[-1] == pytest.approx(0.05 * 5e-3, rel=0.02)


def test_stages_follow_one_another_and_each_begins_high():
    end = Stage(1, 3e-3, 50, cosine_from=50, goes_on=True)
    stages = (Stage(20, 1e-3, 20), Stage(5, 3e-3, 50, goes_on=True), Stage(5, 3e-3, 50), end)
    recipe = replace(RECIPE, stages=stages)
    assert [recipe.position(step) for step in (0, 19, 20, 24, 29)] == [(0, 0), (0, 19), (1, 0), (1, 4), (2, 4)]
    assert recipe.lr(19) < 1e-4 and recipe.lr(20) == 3e-3 and recipe.lr(24) > 2.9e-3
    assert recipe.lr(25) == pytest.approx(3e-4) and recipe.lr(29) == pytest.approx(3e-3 * 0.5)  # the warm-up
    assert recipe.lr(30) == pytest.approx(0.05 * 3e-3)
    with pytest.raises(ValueError, match="has 31 steps, there is none after 31"):
        recipe.lr(31)


def test_a_stage_that_does_not_go_on_starts_the_optimiser_afresh(tmp_path):
    """A gradient of zero moves a weight only as far as the optimiser remembers earlier gradients."""
    for goes_on in (True, False):
        recipe = replace(RECIPE, stages=(Stage(2, 1e-3, 100), Stage(1, 1e-3, 100, goes_on=goes_on)), n_warmup=1)
        network = Network(CFG, torch.Generator().manual_seed(0))
        optimizer = make_optimizer(network, recipe)
        tokens = torch.from_numpy(training_documents(4, 0, 0)).long()
        for step in range(2):
            train_step(network, optimizer, tokens, recipe, step, torch.Generator())
        before = network.W_pos[40].clone()  # its gradient is zero in shorter rows
        train_step(network, optimizer, tokens[:, :20], recipe, 2, torch.Generator())
        rest = before * (1 - recipe.lr(2) * recipe.weight_decay)
        assert torch.equal(network.W_pos[40], rest) != goes_on


def test_silent_heads_are_whole_heads_of_the_upper_half_and_the_mean_stays():
    network = Network(CFG, torch.Generator().manual_seed(0))
    factors = HeadDropout(0.25, torch.Generator().manual_seed(1))(torch.ones(2000, 2, 3, 4))
    assert torch.equal(factors, factors[:, :, :1, :1].expand_as(factors))
    values, counts = factors[:, :, 0, 0].unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 4 / 3])
    assert abs(counts[0].item() / 4000 - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5
    tokens = torch.randint(0, 700, (3, 9))
    with torch.no_grad():
        without = network(tokens)
        assert torch.equal(network(tokens, HeadDropout(0.0, torch.Generator())), without)
        network.blocks[1]["W_O"].zero_()  # then nothing is left to silence
        assert torch.equal(network(tokens, HeadDropout(0.9, torch.Generator())), network(tokens))


def test_an_interrupted_run_goes_on_and_ends_where_an_uninterrupted_one_does(tmp_path):
    threads = torch.get_num_threads()
    whole = train(RECIPE, training_documents, tmp_path / "whole", seed=0, n_workers=1)
    killed = multiprocessing.get_context("spawn").Process(
        target=train, args=(RECIPE, training_documents, tmp_path / "parts"), kwargs={"seed": 0, "n_workers": 1}
    )
    killed.start()
    while killed.is_alive() and not (tmp_path / "parts" / "progress.pt").exists():
        time.sleep(0.01)
    killed.terminate()
    killed.join()
    resumed = train(RECIPE, training_documents, tmp_path / "parts", seed=0, n_workers=1)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    checkpoint = torch.load(tmp_path / "whole" / f"step-{CHUNK}.pt")
    assert not torch.equal(checkpoint["embed.W_E"], whole["embed.W_E"])
    assert torch.get_num_threads() == threads


def test_workers_whose_parent_was_killed_stop(tmp_path, capfd):
    """Torch interrupts them; where interrupts are ignored, as under nohup, they look for themselves."""
    endless = replace(RECIPE, stages=(Stage(1000 * CHUNK, 5e-3, 1000 * CHUNK),))
    parent = multiprocessing.get_context("spawn").Process(
        target=train, args=(endless, training_documents, tmp_path), kwargs={"seed": 0, "n_workers": 1}
    )
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        parent.start()
    finally:
        signal.signal(signal.SIGINT, heeded)
    while parent.is_alive() and not (tmp_path / "progress.pt").exists():
        time.sleep(0.01)
    parent.kill()
    parent.join()
    said, deadline = "", time.monotonic() + 120
    while "the process that started this one is gone" not in said and time.monotonic() < deadline:
        time.sleep(0.1)
        said += capfd.readouterr().err
    assert "the process that started this one is gone" in said


def test_two_processes_do_what_one_does_with_the_documents_of_both(tmp_path):
    recipe = replace(RECIPE, stages=(Stage(3, 5e-3, 3),), checkpoints=())
    together = train(recipe, training_documents, tmp_path, seed=7, n_workers=2)
    network = Network(CFG, torch.Generator().manual_seed(7))
    optimizer = make_optimizer(network, recipe)
    shares = [torch.from_numpy(training_documents(3 * 2, chunk_seed(7, 0, rank), 0)).chunk(3) for rank in (0, 1)]
    for step, halves in enumerate(zip(*shares, strict=True)):
        train_step(network, optimizer, torch.cat(halves).long(), recipe, step, torch.Generator())
    for name, value in network.standard_state().items():
        if name.endswith("b_K"):
            continue  # its gradient is zero but for rounding, which Adam blows up
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_mlps_rest_while_heads_form(tmp_path):
    recipe = replace(RECIPE, stages=(Stage(2, 5e-3, 2, mlps_rest=True),), checkpoints=())
    state = train(recipe, training_documents, tmp_path, seed=0, n_workers=1)
    before = Network(CFG, torch.Generator().manual_seed(0)).standard_state()
    for name, value in state.items():
        assert torch.equal(value, before[name]) == (".mlp." in name or ".ln2." in name), name


def test_progress_of_another_run_is_not_overwritten(tmp_path):
    tiny = Recipe(CFG, (Stage(2, 1e-3, 2),), batch=2)
    train(tiny, training_documents, tmp_path, seed=0, n_workers=1)
    with pytest.raises(ValueError, match="holds the progress of another recipe or seed"):
        train(tiny, training_documents, tmp_path, seed=1, n_workers=1)
    with pytest.raises(ValueError, match="batch of 2 documents can't be shared out to 3 processes"):
        train(tiny, training_documents, tmp_path, seed=0, n_workers=3)
