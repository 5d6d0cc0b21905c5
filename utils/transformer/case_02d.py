"""The case of part 02d: which of six rewrites of the course model left its function as it was."""

import torch
from einops import einsum
from jaxtyping import Int
from torch import Tensor, nn

from utils.data import corpus
from utils.models.course_model import course_model_weights
from utils.transformer.model import Transformer
from utils.transformer.weights import center_writing_weights, fold_layer_norm


def rewrites() -> dict[str, Transformer]:
    """Six rewritten course models, by letter. What was done to which is the question; the answer is in the code."""
    cfg, state = course_model_weights()
    generator, new = torch.Generator().manual_seed(0), {letter: dict(state) for letter in "ABCDEF"}
    for layer in range(cfg.n_layers):
        neurons, heads = (torch.randperm(n, generator=generator) for n in (cfg.d_mlp, cfg.n_heads))
        mlp, attn = f"blocks.{layer}.mlp.", f"blocks.{layer}.attn."
        new["A"] |= {mlp + "W_in": state[mlp + "W_in"][:, neurons], mlp + "W_out": state[mlp + "W_out"][neurons]}
        new["A"] |= {mlp + "b_in": state[mlp + "b_in"][neurons]}
        new["A"] |= {attn + x: state[attn + x][heads] for x in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")}
    new["B"]["pos_embed.W_pos"] = state["pos_embed.W_pos"].clone()
    new["B"]["pos_embed.W_pos"][-1] = 0
    new["C"] |= {name: 1.01 * state[name] for name in ("unembed.W_U", "unembed.b_U")}
    new["D"] = fold_layer_norm(state, cfg)
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn."
        carried = einsum(new["D"][attn + "b_V"], state[attn + "W_O"], "head d_head, head d_head d_model -> d_model")
        new["D"] |= {attn + "b_O": state[attn + "b_O"] + carried, attn + "b_V": 0 * state[attn + "b_V"]}
    new["E"]["embed.W_E"] = state["embed.W_E"].clone()
    new["E"]["embed.W_E"][corpus.encode("Cusco")] = state["embed.W_E"][corpus.encode("Salzburg")]
    new["F"]["unembed.W_U"] = state["unembed.W_U"] - state["unembed.W_U"].mean(-1, keepdim=True)
    new["F"]["unembed.b_U"] = state["unembed.b_U"] + 2
    models = {letter: Transformer(cfg) for letter in new}
    for letter, model in models.items():
        model.load_state_dict(new[letter])
        model.requires_grad_(False)
    return models


def which_rewrites_altered_the_function(model: nn.Module, rewritten: dict[str, nn.Module]) -> dict[str, object]:
    """Design a test of equality: which of the rewritten models still compute the same function as ``model``?

    The function is the distribution over the next word, behind any text that the model can take in. "The same" means up
    to rounding.

    Args:
        model: The course model as a ``Transformer``; ``model.cfg`` has its sizes, ``model.state_dict()`` its weights.
        rewritten: Models of the same architecture, by letter.

    Returns:
        A dict with these keys:

        "texts": A list of token ids for each text, all of one length. At most 1,000 tokens in all.
        "measure": A function ``measure(model, other, tokens)`` that returns a number, the larger the more the two
            models' predictions for ``tokens`` [batch, pos] differ, and 0 for a model and itself.
        "exact": A function ``exact(state)`` that returns a new state dict, in which at least one tensor is another one,
            but which by algebra computes the same function. It shows what rounding does to your measure.
        "damage": A function ``damage(state)`` that returns a state dict which does not, but nearly: on your texts the
            mean KL divergence of its predictions from the model's is at most 0.01 nats. It shows what your measure can
            see.
        "limit": A number. A rewrite has altered the function if the measure of your texts is above it. It lies above
            the measure of ``exact`` and below that of ``damage``. The design is tried on other rewrites, too: it lets
            pass what is exact by algebra, and notices if a single word's row of W_E is another one, whichever word, if
            a single position's row of W_pos is zero, whichever position, and if all logits are a hundredth larger.
        "altered": A list of the letters whose function is another one.
    """
    generator = torch.Generator().manual_seed(0)
    every_word = 1 + torch.randperm(model.cfg.d_vocab - 1, generator=generator).reshape(-1, model.cfg.n_ctx - 1)
    documents = torch.as_tensor(corpus.corpus(2, corpus.HELD_OUT_SEED)).long()
    texts = torch.cat([torch.cat([torch.zeros(len(every_word), 1, dtype=torch.long), every_word], 1), documents])

    def measure(model: nn.Module, other: nn.Module, tokens: Int[Tensor, "batch pos"]) -> float:
        with torch.no_grad():
            ours, theirs = (m(tokens).log_softmax(-1) for m in (model, other))
        return (ours.exp() * (ours - theirs)).sum(-1).mean().abs().item()

    def exact(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return center_writing_weights(fold_layer_norm(state, model.cfg), model.cfg)

    def damage(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**state, "unembed.W_U": 1.005 * state["unembed.W_U"]}

    yardsticks = []
    for rewrite in (exact, damage):
        other = Transformer(model.cfg)
        other.load_state_dict(rewrite(dict(model.state_dict())))
        yardsticks.append(measure(model, other, texts))
    limit = (max(yardsticks[0], 1e-9) * yardsticks[1]) ** 0.5
    return {
        "texts": texts.tolist(),
        "measure": measure,
        "exact": exact,
        "damage": damage,
        "limit": limit,
        "altered": [letter for letter, other in rewritten.items() if measure(model, other, texts) > limit],
    }
