"""What part 07a says of SmolLM2-135M, measured again; the figures are those of this file of 4-bit weights."""

import pytest
import torch

from utils.probes.activations import collect_activations
from utils.probes.baselines import last_words, words_so_far
from utils.probes.evaluate import control_task, probe_by_layer
from utils.probes.fit import least_squares_probe, mass_mean_probe
from utils.probes.web_quotes import web_quote_texts


@pytest.mark.parametrize("seed", [0, 4])
def test_quotation_marks_rise_later_and_end_as_high(smollm2, seed):
    texts = web_quote_texts(smollm2, 6, seed)
    inside, frames = texts.inside[texts.words], texts.frames_of(texts.words)
    sites = ["blocks.0.hook_resid_pre"] + [f"blocks.{n}.hook_resid_post" for n in (0, 2, 6, 12, 20, 29)]
    first = torch.zeros_like(texts.words)
    first[:, 0] = True
    x = collect_activations(smollm2, texts.tokens, sites, texts.words, batch_size=10)
    at_first = collect_activations(smollm2, texts.tokens[:2], sites[-3:-2], first[:2])[sites[-3]]
    found = [v.mean().item() for v in probe_by_layer(x, inside, frames, least_squares_probe).values()]
    assert 1 - inside.float().mean().item() == pytest.approx(0.59, abs=0.02)
    assert found[0] < 0.64 and 0.62 < found[1] < 0.85 and found[2] == pytest.approx(0.91, abs=0.07)
    assert min(found[4:]) > 0.94
    means = [v.mean().item() for v in probe_by_layer(x, inside, frames, mass_mean_probe).values()]
    assert max(means[:4]) < 0.68 and 0.7 < max(means) < 0.88
    tables = {"four": last_words(texts.tokens, texts.words, 4), "bag": words_so_far(texts.tokens, texts.words)}
    alone = probe_by_layer(tables, inside, frames, least_squares_probe)
    assert alone["four"].mean() < 0.78 and found[4] > alone["four"].mean() + 0.15 and alone["bag"].mean() > 0.97
    words, ids = texts.tokens[texts.words].unique(return_inverse=True)
    drawn = control_task(ids, len(words), 0.41, torch.Generator().manual_seed(seed))
    control = probe_by_layer(x, drawn, frames, least_squares_probe)
    assert min(v.mean() for v in control.values()) > 0.94
    assert at_first.norm(dim=1).min() > 30 * x[sites[-3]].norm(dim=1).median()
