"""Small transformers into which a circuit has been planted: its edges are known because we set the weights.

All have two layers of four heads and an MLP with ReLUs, no norms, and 110 edges. The last token of a prompt is END, and
what is read there is one logit less another. A few heads and one neuron do a job; all others are noise:
connected to everything, with effects that are small and not zero. Drawn anew with each seed are which heads do the job,
where the tokens stand that matter, the basis of the stream (a rotation), the noise, and the prompts.

- ``and``: the answer needs two things that stand at two places, and two heads that fetch them. One neuron fires if both
  have come: relu(2a + 2b - 3).
- ``or``: either will do, each is the other's backup. One neuron takes the answer away unless one of them has come:
  -relu(1 - 2a - 2b).
- ``copy``: a head copies the name behind a mark. A head of layer 0 tells each token whether the token before it is the
  mark, the copying head's *keys* read that, and its softmax is saturated. A distractor head copies the other name, at
  half the strength, mark or no mark.
- ``inhibition``: a head writes the answer, at twice the strength; a head of layer 1 reads what it wrote and writes
  against it, with one.
- ``cancelling``: one head writes the answer. Another writes it, too, and a neuron that reads this one takes exactly as
  much away: of that head's two routes each matters, and of both together nothing is left.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.circuits.graph import Edge, build_graph
from utils.models.config import PlainConfig
from utils.models.hooked import hooked_transformer

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

KINDS = ("and", "or", "copy", "inhibition", "cancelling")
N_POS, D_HEAD = 8, 8
END, FILLERS, A_OFF, A_ON, B_OFF, B_ON, MARK, NAMES, YES, NO = 0, range(1, 6), 6, 7, 8, 9, 10, range(11, 15), 15, 16
D_VOCAB = 17
# Where in the stream, before it is rotated, a thing is kept.
TOKEN, POSITION = 0, D_VOCAB
SLOTS = {name: D_VOCAB + N_POS + i for i, name in enumerate(("a", "b", "marked", "yes", "inhibited"))}
GUESS = D_VOCAB + N_POS + len(SLOTS)
CFG = PlainConfig(
    d_model=GUESS + len(NAMES), n_layers=2, n_heads=4, d_head=D_HEAD, d_mlp=8, n_ctx=N_POS, d_vocab=D_VOCAB
)
STRENGTH, SHARPNESS = 4.0, 16.0


class Planted(NamedTuple):
    """A network with a planted circuit.

    Attributes:
        kind: One of ``KINDS``.
        model: The network.
        edges: All its edges, of ``build_graph``.
        clean, corrupt: Prompts with the answer, and the same with another one: the tokens that matter are changed, and
            the fillers between them are drawn anew.
        answers, foils: Whose logits are compared, behind the last token.
        truth: For each edge whether it belongs to the circuit: whether what it carries differs between clean and
            corrupt prompts, and has a planted part in the answer, given what the other edges carry or in their absence.
    """

    kind: str
    model: "HookedTransformer"
    edges: list[Edge]
    clean: Int[Tensor, "batch pos"]
    corrupt: Int[Tensor, "batch pos"]
    answers: Int[Tensor, " batch"]
    foils: Int[Tensor, " batch"]
    truth: Bool[Tensor, " edge"]

    def metric(self, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, " batch"]:
        """How far each answer is ahead of its foil behind the last token, in nats."""
        rows = torch.arange(len(logits))
        return logits[rows, -1, self.answers] - logits[rows, -1, self.foils]


def planted_circuit(kind: str, seed: int, *, n: int = 16, noise: float = 0.1) -> Planted:
    """Draw a network of one kind and ``n`` pairs of prompts.

    Args:
        kind: One of ``KINDS``.
        seed: Draws everything that is drawn.
        n: Pairs of prompts.
        noise: Scale of the weights that have no job, 0 for none. At 0.1 what a head without a job does to the answer is
            some hundredths of what the circuit does.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    weights = _Weights(generator, noise)
    roles = {"heads": [rng.sample(range(CFG.n_heads), 2) for _ in range(2)], "mlp": rng.randrange(CFG.n_layers)}
    places = rng.choice(
        [(2, 4), (2, 5), (2, 6), (3, 5), (3, 6), (4, 6), (4, 2), (5, 2), (6, 2), (5, 3), (6, 3), (6, 4)]
    )
    truth = _copy(weights, roles, places) if kind == "copy" else _gate(weights, kind, roles, places)
    clean, corrupt, answers, foils = _prompts(rng, kind, places, n)
    edges = build_graph(CFG.n_layers, CFG.n_heads)
    model = hooked_transformer(CFG, weights.rotated(generator))
    mask = torch.tensor([edge in truth for edge in edges])
    return Planted(kind, model, edges, clean, corrupt, answers, foils, mask)


class _Weights:
    """A network's weights in a basis where each slot of the stream holds one thing."""

    def __init__(self, generator: torch.Generator, noise: float):
        def drawn(*shape: int) -> Tensor:
            return noise * torch.randn(shape, generator=generator)

        cfg = CFG
        self.state = {
            "embed.W_E": torch.eye(cfg.d_vocab, cfg.d_model),
            "pos_embed.W_pos": torch.eye(cfg.d_model)[POSITION : POSITION + cfg.n_ctx],
            "unembed.W_U": torch.zeros(cfg.d_model, cfg.d_vocab),
            "unembed.b_U": torch.zeros(cfg.d_vocab),
        }
        for layer in range(cfg.n_layers):
            attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
            for name in ("Q", "K", "V"):
                self.state[f"{attn}.W_{name}"] = drawn(cfg.n_heads, cfg.d_model, cfg.d_head)
                self.state[f"{attn}.b_{name}"] = torch.zeros(cfg.n_heads, cfg.d_head)
            self.state[f"{attn}.W_O"] = drawn(cfg.n_heads, cfg.d_head, cfg.d_model)
            self.state[f"{attn}.b_O"] = torch.zeros(cfg.d_model)
            self.state[f"{mlp}.W_in"], self.state[f"{mlp}.b_in"] = drawn(cfg.d_model, cfg.d_mlp), drawn(cfg.d_mlp)
            self.state[f"{mlp}.W_out"] = drawn(cfg.d_mlp, cfg.d_model)
            self.state[f"{mlp}.b_out"] = torch.zeros(cfg.d_model)

    def look(self, layer: int, head: int, pairs: dict[int, int]) -> None:
        """Make it a head's job to attend from one slot's holder (the key of the dict) to another's, sharply."""
        for name in ("Q", "K", "V", "O"):
            self.state[f"blocks.{layer}.attn.W_{name}"][head] = 0
        for i, (asker, sought) in enumerate(pairs.items()):
            self.state[f"blocks.{layer}.attn.W_Q"][head, asker, i] += SHARPNESS * D_HEAD**0.5
            self.state[f"blocks.{layer}.attn.W_K"][head, sought, i] += 1

    def carry(self, layer: int, head: int, pairs: dict[int, int], strength: float = 1.0) -> None:
        """Let a head carry what is in one slot, where it looks, into another slot, where it stands."""
        for i, (source, target) in enumerate(pairs.items()):
            self.state[f"blocks.{layer}.attn.W_V"][head, source, i] += 1
            self.state[f"blocks.{layer}.attn.W_O"][head, i, target] += strength

    def neuron(self, layer: int, reads: dict[int, float], bias: float, writes: dict[int, float]) -> None:
        """Make the first neuron of an MLP relu(sum of slots times weights + bias), written into other slots."""
        mlp = f"blocks.{layer}.mlp"
        self.state[f"{mlp}.W_in"][:, 0], self.state[f"{mlp}.W_out"][0] = 0, 0
        self.state[f"{mlp}.b_in"][0] = bias
        for slot, weight in reads.items():
            self.state[f"{mlp}.W_in"][slot, 0] += weight
        for slot, weight in writes.items():
            self.state[f"{mlp}.W_out"][0, slot] += weight

    def answer(self, reads: dict[int, float], token: int) -> None:
        """Let the logit of a token read these slots."""
        for slot, weight in reads.items():
            self.state["unembed.W_U"][slot, token] = weight * STRENGTH

    def rotated(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The same network with the stream in a random basis."""
        rotation = torch.linalg.qr(torch.randn(CFG.d_model, CFG.d_model, generator=generator))[0]
        readers, writers = ("W_Q", "W_K", "W_V", "W_in", "W_U"), ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")
        return {
            name: rotation.T @ value
            if name.endswith(readers)
            else value @ rotation
            if name.endswith(writers)
            else value
            for name, value in self.state.items()
        }


def _gate(weights: _Weights, kind: str, roles: dict, places: Sequence[int]) -> set[Edge]:
    """Heads of layer 0 fetch to END what stands at two places; the rest depends on the kind."""
    (first, second), (third, _), m = *roles["heads"], roles["mlp"]
    a, b, yes, inhibited = (SLOTS[name] for name in ("a", "b", "yes", "inhibited"))
    end = POSITION + N_POS - 1
    for head, place, on, slot in ((first, places[0], A_ON, a), (second, places[1], B_ON, b)):
        if slot == a or kind != "inhibition":
            weights.look(0, head, {end: POSITION + place})
            weights.carry(0, head, {TOKEN + on: slot})
    head_a, head_b, mlp = f"a0.{first}", f"a0.{second}", f"m{m}"
    if kind in ("and", "or"):
        sign = 1 if kind == "and" else -1
        weights.neuron(m, {a: 2 * sign, b: 2 * sign}, -3 if kind == "and" else 1, {yes: sign})
        weights.answer({yes: 1}, YES)
        return {("embed", f"{head_a}.v"), ("embed", f"{head_b}.v"), (head_a, mlp), (head_b, mlp), (mlp, "logits")}
    if kind == "cancelling":
        weights.neuron(m, {a: 1}, 0, {yes: -1})
        weights.answer({a: 1, b: 1, yes: 1}, YES)
        fetched = {("embed", f"{head_a}.v"), ("embed", f"{head_b}.v")}
        return fetched | {(head_a, mlp), (mlp, "logits"), (head_a, "logits"), (head_b, "logits")}
    against = f"a1.{third}"
    weights.look(1, third, {end: end})
    weights.carry(1, third, {a: inhibited})
    weights.answer({a: 2, inhibited: -1}, YES)
    return {("embed", f"{head_a}.v"), (head_a, f"{against}.v"), (head_a, "logits"), (against, "logits")}


def _copy(weights: _Weights, roles: dict, places: Sequence[int]) -> set[Edge]:
    """A head of layer 0 tells each position whether the mark stands before it; one of layer 1 copies what is there."""
    (marker, _), (copying, distractor) = roles["heads"]
    guesses = {TOKEN + name: GUESS + i for i, name in enumerate(NAMES)}
    weights.look(0, marker, {POSITION + i: POSITION + i - 1 for i in range(1, N_POS)})
    weights.carry(0, marker, {TOKEN + MARK: SLOTS["marked"]})
    weights.look(1, copying, {TOKEN + END: SLOTS["marked"]})
    weights.carry(1, copying, guesses)
    weights.look(1, distractor, {POSITION + N_POS - 1: POSITION + places[1]})
    weights.carry(1, distractor, guesses, strength=0.5)
    for i, name in enumerate(NAMES):
        weights.answer({GUESS + i: 1}, name)
    return {("embed", f"a0.{marker}.v"), (f"a0.{marker}", f"a1.{copying}.k"), (f"a1.{copying}", "logits")}


def _prompts(rng: random.Random, kind: str, places: Sequence[int], n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean and corrupt prompts, answers and foils."""
    first, second = places
    rows = {"clean": [], "corrupt": []}
    answers, foils = [], []
    for _ in range(n):
        names = rng.sample(NAMES, 2)
        for run, filled in rows.items():
            row = [rng.choice(FILLERS) for _ in range(N_POS - 1)] + [END]
            if kind == "copy":
                row[first], row[second] = names
                row[(first if run == "clean" else second) - 1] = MARK
            else:
                row[first], row[second] = (A_ON, B_ON) if run == "clean" else (A_OFF, B_OFF)
            filled.append(row)
        answers.append(names[0] if kind == "copy" else YES)
        foils.append(names[1] if kind == "copy" else NO)
    return torch.tensor(rows["clean"]), torch.tensor(rows["corrupt"]), torch.tensor(answers), torch.tensor(foils)
