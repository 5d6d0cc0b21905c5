"""The case of part 08d: whose doing is it that clamping a latent changes what a network says?"""

import random
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.course.cases import estimate
from utils.patching.hooks import run_with_hooks
from utils.sae.autoencoder import SparseAutoencoder
from utils.sae.clamp import clamp_feature

D, N_LATENTS, N_NEAR, N_WORDS, LENGTH, DOSE = 24, 40, 2, 60, 5, 10.0
KINDS = ("the latent", "a neighbour", "any direction")


class ClaimNetwork(nn.Module):
    """A network that says a word or doesn't, with a dictionary of its state.

    The state, [batch, d] at the hook point "hook_state", is a sum of a few of the dictionary's directions, five words'
    worth, and a little noise. The output, [batch], is the logit of the word. The kind says what raises it (more
    in some texts than in others):

    - "the latent": the state's part along the direction of the latent ``claimed``;
    - "a neighbour": the part along another latent's direction, near that of ``claimed``; the part of ``claimed`` that
      is not shared with it does nothing;
    - "any direction": how far the state is from where it usually is, wherever that leads.

    Attributes:
        kind: One of ``KINDS``.
        sae: The dictionary; called, it gives (reconstruction, latents).
        claimed: The latent of which it is claimed that the network says the word because of it.
    """

    def __init__(self, kind: str, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        basis = torch.linalg.qr(draw(D, D))[0]
        directions = draw(N_LATENTS, D)
        # The claimed latent and its neighbours live in three dimensions that no other latent enters.
        directions = directions - directions @ basis[:3].T @ basis[:3]
        directions[0] = basis[0]
        near = 0.45 + 0.15 * torch.rand(N_NEAR, generator=generator)
        for i in range(N_NEAR):
            directions[1 + i] = near[i] * basis[0] + (1 - near[i] ** 2).sqrt() * basis[1 + i]
        directions = directions / directions.norm(dim=1, keepdim=True)
        order = torch.randperm(N_LATENTS, generator=generator)
        self.kind, self.claimed = kind, int((order == 0).nonzero())
        self.hook_state = nn.Identity()
        self.sae = SparseAutoencoder(D, N_LATENTS, generator=generator).requires_grad_(False)
        self.sae.W_dec.copy_(directions[order])
        self.sae.W_enc.copy_(self.sae.W_dec.T)
        self.sae.b_enc.fill_(-0.45)
        codes = torch.rand(N_WORDS, N_LATENTS, generator=generator)
        codes = (codes < 0.03) * (0.6 + 0.4 * torch.rand(N_WORDS, N_LATENTS, generator=generator))
        codes[0, 0] = 1.0  # so that the claimed latent is on somewhere
        read = directions[1] if kind == "a neighbour" else directions[0]
        for name, value in (("W_E", codes[:, order] @ self.sae.W_dec + 0.03 * draw(N_WORDS, D)), ("read", read)):
            self.register_buffer(name, value)
        self.register_buffer("usual", LENGTH * self.W_E.mean(0))
        self.register_buffer("gain", 0.5 + torch.rand(N_WORDS, generator=generator))

    def forward(self, tokens: Int[Tensor, "batch 5"]) -> Float[Tensor, "batch"]:
        away = self.hook_state(self.W_E[tokens].sum(1)) - self.usual
        seen = away.norm(dim=-1) if self.kind == "any direction" else away @ self.read
        return seen * self.gain[tokens].mean(1) - 4


def claim_network(seed: int) -> ClaimNetwork:
    """A network of a kind that the seed draws."""
    return ClaimNetwork(random.Random(f"claim {seed}").choice(KINDS), seed)


def claim_texts(n: int, seed: int) -> Int[Tensor, "n 5"]:
    """Texts of five words for such a network."""
    return torch.randint(N_WORDS, (n, LENGTH), generator=torch.Generator().manual_seed(seed))


class Effects(NamedTuple):
    """Changes of the logit for each text."""

    latent: Float[Tensor, " n"]
    rest: Float[Tensor, " n"]
    random: Float[Tensor, " n"]


def whose_doing(seed: int) -> dict[str, object]:
    """Design an experiment: a latent is clamped and the network says a word. Whose doing is it?

    ``claim_network(seed)`` makes a network with a dictionary, ``network.sae``. Somebody has clamped the latent
    ``network.claimed`` to 10 times the largest value that it has on any text, has seen the word's logit rise, and says:
    "this latent means the word". Three readings are open. "the latent": its direction does it. "a neighbour": the
    direction of another latent does it, from which this one's is not far. "any direction": any push of this length
    does it. Your function is called with other seeds than those you have tried, and has to find out each time.

    The *push* on a text is what the clamp adds to the state: (value - z) W_dec[claimed], z the latent on this text.
    All pushes act at "hook_state", and on each text all have the length of the clamp's. An *effect* on a text is the
    logit with the push less the logit without.

    Args:
        seed: Which network.

    Returns:
        A dict with these keys:

        "texts": [n, 5], at least 60 texts as ``claim_texts`` makes them, no two alike. On at least one of them the
            latent is on.
        "value": What the latent is clamped to: 10 times its largest value on your texts.
        "neighbours": A list of the latents, other than the claimed one, whose directions have a cosine of at least 0.3
            with its own, in either sense: all of them and no others.
        "random": [m, d], at least 20 random directions of any length, none with a cosine of more than 0.9 with the
            latent's, in either sense.
        "effect_latent": Mean over texts of the clamp's effect, and the half-width of its 95 % interval.
        "effect_rest": The same of a push along what is left of the latent's direction without its neighbours: project
            it out of the span of *all* their directions; in the sense of the latent's direction.
        "effect_random": The same of a push along the random directions, averaged over them for each text.
        "verdict": A push *does it* if its interval lies above half of the clamp's mean effect, and *doesn't* if it lies
            below. "any direction" if random ones do it; "the latent" if they don't and the rest does; "a neighbour" if
            neither does; "undecided" in all other cases.
    """
    network = claim_network(seed)
    texts = claim_texts(200, seed).unique(dim=0)
    state = network.W_E[texts].sum(1)
    z = network.sae(state)[1][:, network.claimed]
    value = 10 * z.max().item()
    directions = network.sae.W_dec
    unit = directions / directions.norm(dim=1, keepdim=True)
    own = unit[network.claimed]
    neighbours = [i for i in range(len(unit)) if i != network.claimed and abs(float(unit[i] @ own)) >= 0.3]
    span = unit[neighbours]
    rest = own - own @ torch.linalg.pinv(span) @ span
    random_ones = torch.randn(20, len(own), generator=torch.Generator().manual_seed(seed))
    length = (value - z).abs() * directions[network.claimed].norm()
    before = network(texts)

    def effect(hook) -> Tensor:
        return run_with_hooks(network, texts, [("hook_state", hook)]) - before

    def push(direction: Tensor) -> Tensor:
        return effect(lambda x: x + length[:, None] * direction / direction.norm())

    found = {
        "effect_latent": effect(clamp_feature(network.sae, network.claimed, value)),
        "effect_rest": push(rest),
        "effect_random": torch.stack([push(one) for one in random_ones]).mean(0),
    }
    reported = {name: estimate(values.tolist()) for name, values in found.items()}
    half = reported["effect_latent"][0] / 2

    def does_it(name: str) -> bool | None:
        mean, width = reported[name]
        return None if abs(mean - half) <= width else mean > half

    chance, rest_does = does_it("effect_random"), does_it("effect_rest")
    verdict = "undecided"
    if chance:
        verdict = "any direction"
    elif chance is False and rest_does is not None:
        verdict = "the latent" if rest_does else "a neighbour"
    return {
        "texts": texts, "value": value, "neighbours": neighbours, "random": random_ones, **reported, "verdict": verdict
    }  # fmt: skip
