"""What part 08b says of SmolLM2-135M, measured again with other starting weights."""

import pytest
import torch

from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.compare import shrinkage
from utils.sae.metrics import fraction_variance_explained
from utils.sae.texts import peoples_rows
from utils.sae.topk import TopKSAE, topk_objective
from utils.sae.training import from_table, train_sae

SITE = "blocks.15.hook_resid_post"


@pytest.fixture(scope="module")
def tables(smollm2):
    found = []
    for held_out, n in ((False, 24), (True, 8)):
        rows = peoples_rows(smollm2.tokenizer, 128, held_out=held_out)[:n]
        with torch.no_grad():
            _, cache = smollm2.run_with_cache(rows, names_filter=[SITE], return_type=None, stop_at_layer=16)
        x = cache[SITE][:, 1:].flatten(0, 1)
        found.append(x[x.norm(dim=1) < 5 * x.norm(dim=1).median()])
    scale = 576**0.5 / found[0].norm(dim=1).mean()
    return [x * scale for x in found]


def test_the_tax_shrinks_there_too(tables):
    x, x_test = tables
    gamma, variance = {}, {}
    for name, sae, objective in (
        ("L1", SparseAutoencoder(576, 512, generator=torch.Generator().manual_seed(3)), l1_objective(2.0)),
        ("TopK", TopKSAE(576, 512, 16, generator=torch.Generator().manual_seed(3)), topk_objective()),
    ):
        train_sae(sae, from_table(x, 256, seed=3), objective, n_steps=100, lr=3e-3)
        with torch.no_grad():
            x_hat, _ = sae(x_test)
        gamma[name], variance[name] = shrinkage(x_test, x_hat), fraction_variance_explained(x_test, x_hat)
    assert gamma["L1"] < gamma["TopK"] and variance["TopK"] > 0.2
