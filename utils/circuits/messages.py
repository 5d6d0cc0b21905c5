"""Running a transformer edge by edge: every receiver gets its own sum of messages, some of them another run's.

A head or MLP *sends* what it adds to the residual stream. A receiver is normally given the stream, the sum of all that
was sent. Here the message along each single edge can be replaced by what the same sender puts out in another run
(resample ablation), on average (mean ablation), or by nothing (zero ablation). All edges but one kept: exact edge
patching. Only a circuit's edges kept: the circuit, run alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.circuits.graph import Edge
from utils.patching.hooks import run_with_hooks

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PARTS = {"q": "hook_q_input", "k": "hook_k_input", "v": "hook_v_input"}
EMBED = "blocks.0.hook_resid_pre"


def mix_messages(
    stream: Float[Tensor, "copy batch pos d_model"],
    sent: Float[Tensor, "sender copy batch pos d_model"],
    replaced: Float[Tensor, "sender batch pos d_model"],
    kept: Bool[Tensor, "copy receiver sender"],
) -> Float[Tensor, "copy batch pos receiver d_model"]:
    """What each receiver reads if some of the messages to it are replaced.

    For a copy c of the prompts and a receiver r: the stream, in which for each sender s with ``kept[c, r, s]`` False
    the message that s has sent in this copy is exchanged for ``replaced[s]``. The stream is the sum of what was sent,
    and of biases that belong to no sender: these stay.

    Args:
        stream: The residual stream of the run, in several copies of the prompts.
        sent: What each sender has added to it in this very run, copy by copy.
        replaced: What is read in place of it; the same for all copies.
        kept: Which messages arrive as they were sent.

    Returns:
        One input for each receiver. Where all is kept it equals the stream.
    """
    change = replaced[:, None] - sent
    return stream[:, :, :, None] + torch.einsum("crs,scbpd->cbprd", (~kept).to(change.dtype), change)


def sender_names(model: "HookedTransformer") -> list[str]:
    """The senders of ``build_graph`` in the order in which they write."""
    names = ["embed"]
    for layer in range(model.cfg.n_layers):
        names += [f"a{layer}.{head}" for head in range(model.cfg.n_heads)]
        names += [] if model.cfg.attn_only else [f"m{layer}"]
    return names


def receiver_names(model: "HookedTransformer") -> list[str]:
    """The receivers of ``build_graph`` in the order in which they read."""
    names = []
    for layer in range(model.cfg.n_layers):
        names += [f"a{layer}.{head}.{part}" for head in range(model.cfg.n_heads) for part in PARTS]
        names += [] if model.cfg.attn_only else [f"m{layer}"]
    return [*names, "logits"]


@contextmanager
def separate_inputs(model: "HookedTransformer") -> Iterator[None]:
    """Let each head's queries, keys and values, and each MLP, be given an input of their own; as before afterwards."""
    flags = ("use_split_qkv_input", "use_hook_mlp_in", "ungroup_grouped_query_attention")
    before = {flag: getattr(model.cfg, flag) for flag in flags}
    try:
        for flag in flags:
            setattr(model.cfg, flag, True)
        yield
    finally:
        for flag, value in before.items():
            setattr(model.cfg, flag, value)


def _hooks(
    model: "HookedTransformer", read: Callable[[list[str], Tensor], Tensor], write: Callable[[str, Tensor], Tensor]
) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """Hooks that hand every receiver's input to ``read`` and every sender's output to ``write``, in order.

    ``read(receivers, inputs)`` is given inputs [row, pos, receiver, d_model] and returns what is read in their place;
    ``write(sender, output)`` may return another output [row, pos, d_model], which the embedding alone respects.
    """

    def single(name: str) -> Callable[[Tensor], Tensor]:
        return lambda stream: read([name], stream[:, :, None])[:, :, 0]

    def heads(layer: int) -> Callable[[Tensor], Tensor]:
        def record(z: Tensor) -> Tensor:
            for head in range(model.cfg.n_heads):
                write(f"a{layer}.{head}", z[:, :, head] @ model.blocks[layer].attn.W_O[head])
            return z

        return record

    def mlp(layer: int) -> Callable[[Tensor], Tensor]:
        def record(output: Tensor) -> Tensor:
            write(f"m{layer}", output)
            return output

        return record

    hooks = [(EMBED, lambda stream: write("embed", stream))]
    for layer in range(model.cfg.n_layers):
        block = f"blocks.{layer}"
        for part, name in PARTS.items():
            receivers = [f"a{layer}.{head}.{part}" for head in range(model.cfg.n_heads)]
            hooks.append((f"{block}.{name}", lambda inputs, receivers=receivers: read(receivers, inputs)))
        hooks.append((f"{block}.attn.hook_z", heads(layer)))
        if not model.cfg.attn_only:
            hooks += [(f"{block}.hook_mlp_in", single(f"m{layer}")), (f"{block}.hook_mlp_out", mlp(layer))]
    return [*hooks, (f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", single("logits"))]


def sender_outputs(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "sender batch pos d_model"]:
    """What each sender, in the order of ``sender_names``, adds to the stream in an ordinary run; no graph."""
    sent = []

    def write(sender: str, output: Tensor) -> Tensor:
        sent.append(output)
        return output

    with torch.no_grad(), separate_inputs(model):
        run_with_hooks(model, tokens, _hooks(model, lambda receivers, inputs: inputs, write))
    return torch.stack(sent)


def run_with_edges(
    model: "HookedTransformer",
    tokens: Int[Tensor, "batch pos"],
    edges: Sequence[Edge],
    kept: Bool[Tensor, "copy edge"],
    replaced: Float[Tensor, "sender batch pos d_model"],
) -> Float[Tensor, "copy batch pos d_vocab"]:
    """Run the model with some messages replaced; one forward pass for all copies.

    A sender's kept messages are what it puts out in *this* run, after whatever was done to its own inputs; so
    replacements act on along the edges that are kept. The stream itself is left alone: each receiver is handed its own
    sum, and nothing else reads the stream.

    Args:
        model: Any ``HookedTransformer`` whose layers add to one stream, first the heads, then the MLP.
        tokens: The prompts.
        edges: Of ``build_graph``; edges that are not among them are kept.
        kept: For each copy of the prompts, which edges carry this run's message.
        replaced: What the others carry, by ``sender_names``: ``sender_outputs`` of corrupted prompts (resample
            ablation), their mean over the batch, expanded (mean ablation), or zeros (zero ablation).

    Returns:
        Logits of each copy, without a graph.
    """
    senders, receivers = sender_names(model), receiver_names(model)
    matrix = torch.ones(len(kept), len(receivers), len(senders), dtype=torch.bool)
    row, column = ({name: i for i, name in enumerate(names)} for names in (receivers, senders))
    matrix[:, [row[receiver] for _, receiver in edges], [column[sender] for sender, _ in edges]] = kept
    copies, sent = len(kept), []

    def write(sender: str, output: Tensor) -> Tensor:
        sent.append(output.unflatten(0, (copies, -1)))
        return output

    def read(names: list[str], inputs: Tensor) -> Tensor:
        first = row[names[0]]
        step = len(PARTS) if len(names) > 1 else 1
        wanted = matrix[:, first : first + step * len(names) : step, : len(sent)]
        cut = (~wanted).flatten(0, 1).any(0).nonzero()[:, 0]
        if not len(cut):
            return inputs
        stream = inputs[:, :, 0].unflatten(0, (copies, -1))
        changed = torch.stack([sent[i] for i in cut.tolist()])
        return mix_messages(stream, changed, replaced[cut], wanted[:, :, cut]).flatten(0, 1)

    with torch.no_grad(), separate_inputs(model):
        logits = run_with_hooks(model, tokens.repeat(copies, 1), _hooks(model, read, write))
    return logits.unflatten(0, (copies, -1))


def receiver_gradients(
    model: "HookedTransformer",
    tokens: Int[Tensor, "batch pos"],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
    embedding: Float[Tensor, "batch pos d_model"] | None = None,
) -> Float[Tensor, "receiver batch pos d_model"]:
    """The derivative of each prompt's metric by the input of each receiver: one forward and one backward pass.

    Args:
        model: As in ``run_with_edges``; its parameters need no gradient, and are given none.
        tokens: The prompts.
        metric: From logits to a number for each prompt, differentiable.
        embedding: Put in place of what the embedding sends.

    Returns:
        One gradient for each of ``receiver_names``, without a graph.
    """
    nudges = {}

    def read(names: list[str], inputs: Tensor) -> Tensor:
        nudge = torch.zeros_like(inputs, requires_grad=True)
        nudges.update({names[0]: (names, nudge)})
        return inputs + nudge

    def write(sender: str, output: Tensor) -> Tensor:
        return embedding.clone() if sender == "embed" and embedding is not None else output

    with torch.inference_mode(False), torch.enable_grad(), separate_inputs(model):
        logits = run_with_hooks(model, tokens.clone(), _hooks(model, read, write))
        found = torch.autograd.grad(
            metric(logits).sum(), [nudge for _, nudge in nudges.values()], materialize_grads=True
        )
    by_name = {}
    for (names, _), slope in zip(nudges.values(), found, strict=True):
        by_name.update(zip(names, slope.unbind(2), strict=True))
    return torch.stack([by_name[name] for name in receiver_names(model)])
