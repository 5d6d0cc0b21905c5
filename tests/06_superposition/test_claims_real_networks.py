"""What part 06a says of SmolLM2-135M, measured again; the figures are those of this file of 4-bit weights."""

import pytest
import torch

from utils.data.corpus import decode
from utils.data.prompts import WORD_CLASSES, documents
from utils.models.phenomena.neurons import FAMILIES
from utils.superposition.bases import coordinate_kurtosis, neuron_selectivity, random_rotation


@pytest.mark.parametrize("seed", [0, 3])
def test_the_streams_axes_stand_out_to_either_side_and_neurons_are_as_selective_as_random_directions(smollm2, seed):
    rows = [smollm2.to_tokens(decode(row[1:].tolist()))[0] for row in documents(24, seed)]
    tokens = torch.stack([row[: min(map(len, rows))] for row in rows])
    names = [f"blocks.{layer}.{site}" for layer in (0, 4, 12) for site in ("hook_resid_post", "mlp.hook_post")]
    with torch.no_grad():
        _, cache = smollm2.run_with_cache(tokens, names_filter=names, stop_at_layer=13)
    family = torch.full((smollm2.cfg.d_vocab,), -1)
    for number, kinds in enumerate(FAMILIES.values()):
        for word in (word for kind in kinds for word in WORD_CLASSES[kind]):
            ids = smollm2.to_tokens(f" {word}", prepend_bos=False)[0]
            if len(ids) == 1:
                family[ids[0]] = number
    for name in names:
        x, c = cache[name][:, 1:].flatten(0, 1), family[tokens[:, 1:].flatten()]
        usual = x.norm(dim=1) < 10 * x.norm(dim=1).median()
        x, c = x[usual], c[usual]
        turns = [random_rotation(x.shape[1], 10 * seed + draw) for draw in range(3)]
        own, turned = coordinate_kurtosis(x).mean(), torch.stack([coordinate_kurtosis(x @ t).mean() for t in turns])
        if "mlp" in name:
            assert own > 12 and turned.max() < 7
            places = [(c == f).nonzero().flatten()[:20] for f in range(8)]
            chosen = torch.cat([p for p in places if len(p) == 20])
            families = [
                neuron_selectivity(y[chosen], c[chosen], 20).mean().item() for y in (x, *(x @ t for t in turns))
            ]
            assert all(abs(families[0] - other) < 0.5 for other in families[1:])
        elif name.startswith("blocks.4."):
            assert own < 6 and turned.min() > 8
        else:
            assert own > turned.max()
