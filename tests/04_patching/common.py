"""What the checks of this chapter share: small models, prompts, metrics, and a watch on what a run leaves behind."""

import contextlib

import torch

from utils.course.checking import expect, expect_raises
from utils.patching.networks import SmallTransformer

SIZES = ({}, {"n_layers": 3, "d_model": 5, "n_heads": 2, "d_head": 3, "d_mlp": 4, "n_ctx": 9, "d_vocab": 13})
# Weights of size one and four sums in another order: two hundred roundings of float32 cover it.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def cases(rng, n_others=0, dtype=torch.float32, **sizes):
    """Two models of other sizes, each with two sets of prompts of one length."""
    for i, own in enumerate(SIZES):
        model = SmallTransformer(rng, **own | sizes).to(dtype)
        batch, pos = 3 + i, 5 + i
        tokens, others = (torch.randint(len(model.W_E), (n, pos), generator=rng) for n in (batch, n_others or batch))
        yield model, tokens, others


class Bypass(torch.nn.Module):
    """A stream that passes a hook point and also goes past it: writing into what the hook is given changes both."""

    def __init__(self, rng):
        super().__init__()
        self.W_E, self.hook = torch.nn.Parameter(torch.randn(7, 4, generator=rng)), torch.nn.Identity()

    def forward(self, tokens):
        x = 2 * self.W_E[tokens]
        return x + self.hook(x).cumsum(1)


def drawn_positions(rng, tokens):
    """One position a prompt, not all alike, and not those that come first: some earlier position is nobody's."""
    batch, pos = tokens.shape
    return (torch.arange(batch) + int(torch.randint(1, pos, (), generator=rng))) % pos


def metric_of(tokens):
    """A curved metric of the last logits that weighs each prompt otherwise; ``seen`` has the batch sizes it was given.

    It grows with the logits (a probability would hide small effects where it is near 0 or 1).
    """

    def metric(logits):
        metric.seen.add(len(logits))
        weights = torch.arange(1.0, len(tokens) + 1) if len(logits) == len(tokens) else 1.0
        return weights * (logits[:, -1, 2] + 0.1 * logits[:, -1, 1].square())

    metric.seen = set()
    return metric


def expect_all_prompts(metric, tokens):
    """Whoever hands a metric two runs at once, or half of one, gets a number for the wrong prompt."""
    other = sorted(metric.seen - {len(tokens)})
    expect(
        not other,
        "A metric is made for these prompts in their order: hand it the logits of one run, of all prompts.",
        actual=other,
        returned=f"logits of {', '.join(map(str, other))} rows",
        expected=f"logits of {len(tokens)} rows",
    )


def kept(model, tokens, names):
    """Activations, by an independent way: torch's own hooks."""
    found, handles = {}, []
    for name in names:
        hook = lambda module, inputs, output, name=name: found.__setitem__(name, output.detach())  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_hook(hook))
    model(tokens)
    for handle in handles:
        handle.remove()
    return {name: found[name] for name in names}


def replaced(model, tokens, name, activation):
    """The model's output with an activation replaced, by torch's own hooks."""
    handle = model.get_submodule(name).register_forward_hook(lambda module, inputs, output: activation)
    result = model(tokens)
    handle.remove()
    return result.detach()


@contextlib.contextmanager
def counted(model):
    """The number of rows of each forward pass that runs inside."""
    rows = []
    handle = model.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    yield rows
    handle.remove()


def n_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@contextlib.contextmanager
def untouched(model, when=""):
    """Expect the model to come out of a run as it went in: hooks, weights, gradients, mode."""
    hooks, training = n_hooks(model), model.training
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    wanting = [parameter.requires_grad for parameter in model.parameters()]
    marked = next(model.parameters())
    marked.grad = torch.ones_like(marked)
    yield
    left = n_hooks(model) - hooks
    expect(
        left == 0,
        f"A hook is still on the model after the run{when}; the next run, of anyone, would be changed by it.",
        actual=left,
        expected="0 hooks more than before",
    )
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, weights[name])]
    expect(not changed, "Your run changed the model's weights, and did not put them back.", actual=changed)
    grads = [name for name, value in model.named_parameters() if value is not marked and value.grad is not None]
    expect(not grads, f"Your run left gradients on {len(grads)} of the model's parameters.", actual=grads)
    same = marked.grad is not None and torch.equal(marked.grad, torch.ones_like(marked))
    expect(same, "A gradient that was on a parameter before the run is gone or another one now.")
    frozen = [parameter.requires_grad for parameter in model.parameters()] == wanting
    expect(frozen, "Your run changed which of the model's parameters are trained.")
    expect(model.training == training, "The model is in another mode (`train`, `eval`) than before.")
    marked.grad = None


def expect_refused(answer, model, *args, **kwargs):
    """Expect a ValueError, and a model that is as it was."""
    with untouched(model, " that ended with an exception"):
        expect_raises(ValueError, answer, model, *args, **kwargs)


def hooked_model(seed=0, scale=0.5):
    """A ``HookedTransformer`` with random weights and pairwise different sizes, for the oracles."""
    from utils.models.config import TransformerConfig
    from utils.models.hooked import hooked_transformer
    from utils.models.network import Network

    generator = torch.Generator().manual_seed(seed)
    cfg = TransformerConfig(d_model=12, n_layers=3, n_heads=2, d_head=5, d_mlp=20, n_ctx=9, d_vocab=17)
    shapes = {name: value.shape for name, value in Network(cfg, generator).standard_state().items()}
    return hooked_transformer(cfg, {name: scale * torch.randn(s, generator=generator) for name, s in shapes.items()})
