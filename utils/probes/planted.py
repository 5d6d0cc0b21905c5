"""Small networks whose weights are set by hand, so that it is known what they hold and what they use."""

import random

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

OUTSIDE, INSIDE, ONE, MANY, FIRST_FILLER, N_WORDS, LENGTH, D = 0, 1, 2, 3, 4, 44, 6, 24
READ_FROM = {"used": (1.0, 0.0), "not used": (0.0, 1.0), "one of several": (1.0, 1.0)}
KINDS = tuple(READ_FROM)


class PlantedNetwork(nn.Module):
    """A network that reads six words and says a verb: present or past, singular or plural.

    The first word tells whether the text stands inside quotation marks (INSIDE, OUTSIDE), the second whether one or
    many do it (ONE, MANY), the other four are fillers. The words' embeddings are added up to a state, [batch, d], at
    the hook point "hook_state"; the output has the logits [batch, 4] of present, past, singular, plural.

    In the state the quotation is written in two ways, along ``direction`` and along another direction at right angles
    to it, each clear enough for a probe. The kind says which of them the tense is read from: "used", from ``direction``
    alone; "not used", from the other alone; "one of several", from both, and either suffices. The number is written
    along a third direction. No attribute says the kind, as it is what a case asks for.

    Attributes:
        direction: Along which the quotation can be decoded; of any length.
    """

    def __init__(self, kind: str, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        first, second, number = torch.linalg.qr(draw(D, 3))[0].T
        W_E = 0.2 * draw(N_WORDS, D)
        W_E[FIRST_FILLER:] -= W_E[FIRST_FILLER:].mean(0)
        offset = 2 * draw(D)
        W_E[[OUTSIDE, INSIDE]] = offset + torch.tensor([[-1.0], [1.0]]) * (first + second)
        W_E[[ONE, MANY]] = torch.tensor([[1.0], [-1.0]]) * number
        read = torch.tensor([*READ_FROM[kind], 1.0])
        for name, value in (
            ("W_E", W_E), ("offset", offset), ("W_read", torch.stack([first, second, number]) * read[:, None]),
            ("direction", first * (0.5 + 2 * torch.rand(1, generator=generator))),
        ):  # fmt: skip
            self.register_buffer(name, value)
        self.hook_state = nn.Identity()

    def forward(self, tokens: Int[Tensor, "batch 6"]) -> Float[Tensor, "batch 4"]:
        state = self.hook_state(self.W_E[tokens].sum(1))
        first, second, number = (2 * (state - self.offset) @ self.W_read.T).tanh().unbind(1)
        tense = (first + second).clamp(-1, 1)
        return 1.5 * torch.stack([tense, -tense, number, -number], dim=1)


def kind_of(seed: int) -> str:
    """Of which kind the network of this seed is."""
    return random.Random(f"kind {seed}").choice(KINDS)


def planted_network(seed: int) -> PlantedNetwork:
    """A network of a kind that the seed draws."""
    return PlantedNetwork(kind_of(seed), seed)


def planted_texts(n: int, seed: int) -> Int[Tensor, "n 6"]:
    """Texts for a planted network, no two alike; half of them inside quotation marks, half about one, independently."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(FIRST_FILLER, N_WORDS, (n, LENGTH), generator=generator)
    tokens[:, 0] = (torch.arange(n) % 2)[torch.randperm(n, generator=generator)]
    tokens[:, 1] = ONE + (torch.arange(n) % 2)[torch.randperm(n, generator=generator)]
    return tokens


def inside(tokens: Int[Tensor, "n 6"]) -> Bool[Tensor, " n"]:
    """Which texts stand inside quotation marks."""
    return tokens[:, 0] == INSIDE


def leads(logits: Float[Tensor, "n 4"], tokens: Int[Tensor, "n 6"]) -> Float[Tensor, "2 n"]:
    """By how much the right tense leads over the wrong one, and the right number over the wrong one."""
    tense = (logits[:, 0] - logits[:, 1]) * torch.where(tokens[:, 0] == INSIDE, 1, -1)
    number = (logits[:, 2] - logits[:, 3]) * torch.where(tokens[:, 1] == ONE, 1, -1)
    return torch.stack([tense, number])


class TwoCopies(nn.Module):
    """A network that holds a feature twice, and reads one of the two.

    It reads numbers [batch, 1], positive where the feature is present. The state, [batch, 1, 3] at "hook_state", has
    the feature in entry 0 with noise, in entry 1 clearly, and noise alone in entry 2. The output, [batch, 1, 1], is
    read from entry 0.

    Args:
        saturated: The output is then the entry's sign, nearly, and hardly changes with it.
    """

    def __init__(self, saturated: bool = False):
        super().__init__()
        self.saturated, self.hook_state = saturated, nn.Identity()

    def forward(self, tokens: Int[Tensor, "batch 1"]) -> Float[Tensor, "batch 1 1"]:
        feature = tokens.sign().float()
        noise = (tokens.abs()[..., None] * torch.tensor([7.0, 13.0])).sin()  # the same for the same number
        state = torch.stack([feature + 0.5 * noise[..., 0], 2 * feature, noise[..., 1]], dim=-1)
        read = self.hook_state(state)[..., :1]
        return (30 * read).tanh() if self.saturated else read
