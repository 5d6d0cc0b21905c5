"""What part 09b says of SmolLM2-135M: how many components of rank one a matrix needs at least."""

import torch


def test_few_components_cannot_add_up_to_the_matrix(smollm2):
    W = smollm2.blocks[15].mlp.W_in.detach()
    assert W.shape == (576, 1536)
    S = torch.linalg.svdvals(W)
    lacking = [(S[C:].square().sum() / S.square().sum()).sqrt().item() for C in (128, 512)]
    assert 0.6 < lacking[0] < 0.7 and 0.04 < lacking[1] < 0.09
