"""The recipe behind chapter 00's losses, and the file that ships."""

import json
import math
from dataclasses import replace

import pytest
import torch

from utils.data.corpus import corpus
from utils.data.prompts import documents
from utils.models import size_variants
from utils.models.bundled import ModelFileError
from utils.models.network import Network
from utils.models.size_variants import (
    CARD_FILE,
    FOLDER,
    LOSSES_FILE,
    WIDTHS,
    WIDTHS_TWICE,
    card,
    learning_rate,
    load_size_variants,
    make,
    sizes,
    train_variant,
)


@pytest.fixture(scope="module")
def shipped():
    return load_size_variants()


def test_the_shipped_file_holds_every_width_and_the_second_runs(shipped):
    assert [v.d_model for v in shipped] == [*WIDTHS, *WIDTHS_TWICE]
    assert [v.seed for v in shipped] == [0] * len(WIDTHS) + [1] * len(WIDTHS_TWICE)
    assert len({tuple(v.tokens) for v in shipped}) == 1, "all runs are measured after the same tokens"


def test_parameters_are_those_of_the_network(shipped):
    for variant in shipped[: len(WIDTHS)]:
        d = variant.d_model
        net = Network(replace(sizes(d), d_vocab=variant.d_vocab), torch.Generator())
        blocks = sum(p.numel() for p in net.blocks.parameters())
        assert variant.parameters == sum(p.numel() for p in net.parameters())
        assert variant.parameters_without_embeddings == blocks + 2 * d
        # Per block: 4 d² of attention, 8 d² of MLP, and 13 d of biases and layer norms.
        assert blocks == 4 * (12 * d**2 + 13 * d)


def test_losses_fall_from_knowing_nothing_and_wider_is_better(shipped):
    first_seed = shipped[: len(WIDTHS)]
    for variant in shipped:
        assert variant.losses[-1] < variant.losses[0] < math.log(variant.d_vocab) + 0.1
    assert all(a.losses[-1] > b.losses[-1] for a, b in zip(first_seed, first_seed[2:], strict=False))


def test_the_card_has_the_numbers_of_the_file(shipped):
    assert (FOLDER / CARD_FILE).read_text(encoding="utf-8") == card(shipped)


def test_the_rate_warms_up_falls_to_zero_and_is_higher_for_narrow_models():
    rates = [learning_rate(128, step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(0.0025) and rates[0] < 1e-4 and rates[-1] < 2e-5
    assert sum(rate == pytest.approx(0.0025) for rate in rates) > 700
    assert learning_rate(32, 500, 1000) == pytest.approx(0.005)
    assert learning_rate(4, 500, 1000) == 0.01


def test_a_run_is_reproducible_learns_and_leaves_the_global_random_state_alone():
    train, held_out = torch.from_numpy(corpus(240, 0)).long(), documents(4, 0)
    before = torch.random.get_rng_state()
    runs = [train_variant(8, seed, train, held_out) for seed in (3, 3, 4)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert runs[0] == runs[1] != runs[2]
    assert runs[0].tokens[-1] == train.numel()
    assert runs[0].losses[-1] < runs[0].losses[0]


def test_make_writes_what_the_loader_reads(tmp_path, monkeypatch):
    for name, value in {"WIDTHS": (4, 8), "WIDTHS_TWICE": (4,), "N_DOCUMENTS": 20, "HELD_OUT": 2}.items():
        monkeypatch.setattr(size_variants, name, value)
    make(tmp_path / "new", seed=5)
    variants = load_size_variants(tmp_path / "new")
    assert [(v.d_model, v.seed) for v in variants] == [(4, 5), (8, 5), (4, 6)]
    assert (tmp_path / "new" / CARD_FILE).read_text(encoding="utf-8") == card(variants)


def damaged(tmp_path, change):
    content = json.loads((FOLDER / LOSSES_FILE).read_text(encoding="utf-8"))
    change(content)
    (tmp_path / LOSSES_FILE).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.clear(),
        lambda content: content["variants"].clear(),
        lambda content: content["variants"][0].pop("seed"),
        lambda content: content["variants"][3]["losses"].pop(),
        lambda content: content["variants"][3]["losses"].__setitem__(0, math.nan),
        lambda content: content["variants"][3]["losses"].__setitem__(0, "4.1"),
        lambda content: content["variants"][3]["tokens"].reverse(),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    damaged(tmp_path, change)
    with pytest.raises(ModelFileError, match=LOSSES_FILE):
        load_size_variants(tmp_path)


def test_a_missing_or_cut_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=str(tmp_path / LOSSES_FILE)):
        load_size_variants(tmp_path)
    whole = (FOLDER / LOSSES_FILE).read_bytes()
    (tmp_path / LOSSES_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match=str(tmp_path / LOSSES_FILE)):
        load_size_variants(tmp_path)
