"""What part 08a says of SmolLM2-135M, measured again with other starting weights and fewer texts."""

from pydoc_data.topics import topics

import torch

from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.metrics import fraction_variance_explained
from utils.sae.training import fold_scale, from_table, scale_of, start_at_median, train_sae
from utils.superposition.planted import same_covariance

SITE = "blocks.15.hook_resid_post"


def test_its_activations_are_explained_better_than_by_their_covariance(smollm2):
    texts = [topics[name] for name in sorted(topics) if len(topics[name]) > 600][:28]
    rows = torch.cat([smollm2.to_tokens(text[:1200])[:, :64] for text in texts])
    with torch.no_grad():
        x = smollm2.run_with_cache(rows, names_filter=[SITE], return_type=None, stop_at_layer=16)[1][SITE][:, 1:]
    usual = x.norm(dim=2).median()
    held, seen = (part.flatten(0, 1) for part in (x[::7], x[[i for i in range(len(x)) if i % 7]]))
    held, seen = (part[part.norm(dim=1) < 5 * usual] for part in (held, seen))
    scale, explained = scale_of(seen), []
    for table in (seen, same_covariance(seen, len(seen), torch.Generator().manual_seed(5))):
        sae = SparseAutoencoder(576, 512, generator=torch.Generator().manual_seed(5))
        start_at_median(sae, scale * table[:1000])
        train_sae(
            sae, from_table(scale * table, 256, seed=5), l1_objective(8.0), n_steps=200, lr=3e-3, n_price_warmup=80
        )
        fold_scale(sae, scale)
        with torch.no_grad():
            explained.append(fraction_variance_explained(held, sae(held)[0]))
    assert explained[0] > explained[1] + 0.1, explained
