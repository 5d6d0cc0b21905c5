"""What the checks of this chapter share: small models, prompts, metrics, and a watch on what a run leaves behind."""

import contextlib

import torch

from utils.course.checking import AnswerRaised, expect, expect_raises
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
    """A stream that passes two hook points, one in two heads, and also goes past them: who writes into what the hook
    is given changes that, too."""

    def __init__(self, rng):
        super().__init__()
        self.W_E = torch.nn.Parameter(torch.randn(7, 4, generator=rng))
        self.hook, self.hook_heads = torch.nn.Identity(), torch.nn.Identity()
        self.passed = []  # of each run the tokens, and the stream

    def forward(self, tokens):
        x = 2 * self.W_E[tokens]
        mixed = self.hook(x).cumsum(1) + self.hook_heads(x.unflatten(-1, (2, 2))).flatten(2).flip(-1).cumsum(1)
        self.passed.append((tokens, x))
        return x + mixed

    def expect_as_it_was(self):
        """Expect that in no run anything was written into the stream, whatever went on behind the hook points."""
        changed = [x.detach() != 2 * self.W_E[tokens] for tokens, x in self.passed]
        expect(
            not any(bool(entries.any()) for entries in changed),
            "A hook has written into the tensor that it was given. The same tensor also goes past the hook point, and "
            "has changed there, too.",
            actual="written into",
            returned=f"{sum(int(entries.sum()) for entries in changed)} of its entries are other ones after the run",
        )


class Twice(torch.nn.Module):
    """One hook point that is passed two times in a run."""

    def __init__(self, rng):
        super().__init__()
        self.W_E, self.hook = torch.nn.Parameter(torch.randn(7, 4, generator=rng)), torch.nn.Identity()

    def forward(self, tokens):
        return self.hook(2 * self.hook(self.W_E[tokens]).cumsum(1) - 1)


class Pair(torch.nn.Module):
    """What goes in, in a pair with its sum, as recurrent networks hand on a state."""

    def forward(self, x):
        return x, x.sum(1)


class Recurrent(torch.nn.Module):
    """A network one of whose submodules puts out a tuple."""

    def __init__(self, rng):
        super().__init__()
        self.W_E, self.hook, self.pair = (
            torch.nn.Parameter(torch.randn(7, 4, generator=rng)),
            torch.nn.Identity(),
            Pair(),
        )

    def forward(self, tokens):
        return self.pair(self.hook(self.W_E[tokens]))[0]


class SharedKeys(torch.nn.Module):
    """Four heads that share two sets of keys, as in grouped-query attention, and their pattern as a hook point."""

    def __init__(self, rng):
        super().__init__()
        self.W_E, self.W_K = (
            torch.nn.Parameter(torch.randn(*shape, generator=rng)) for shape in ((7, 4, 3), (7, 2, 3))
        )
        self.hook_q, self.hook_k, self.hook_pattern = (torch.nn.Identity() for _ in range(3))

    def forward(self, tokens):
        q, k = self.hook_q(self.W_E[tokens]), self.hook_k(self.W_K[tokens])
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k.repeat_interleave(2, dim=2))
        return self.hook_pattern(scores.softmax(-1)).sum(1) @ q.flatten(2)


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


def hooks_on(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {(name, kind, key) for name, m in model.named_modules() for kind in kinds for key in getattr(m, kind)}


def others_hooks(model):
    """Hooks on every submodule that somebody else has put there, who only listens."""
    listen = [lambda module, inputs, output: None, lambda module, inputs: None]
    for module in model.modules():
        yield module.register_forward_hook(listen[0])
        yield module.register_forward_pre_hook(listen[1])


@contextlib.contextmanager
def untouched(model, when=""):
    """Expect the model to come out of a run as it went in: everybody's hooks, weights, gradients, mode."""
    theirs = list(others_hooks(model))
    hooks, training = hooks_on(model), model.training
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    wanting = [parameter.requires_grad for parameter in model.parameters()]
    marked = next(model.parameters())
    marked.grad = torch.ones_like(marked)
    yield
    left, gone = len(hooks_on(model) - hooks), len(hooks - hooks_on(model))
    expect(
        left == 0,
        f"A hook is still on the model after the run{when}; the next run, of anyone, would be changed by it.",
        actual=("left", left),
        returned=f"{left} hooks more than before",
        expected="no hook more than before",
    )
    expect(
        gone == 0,
        f"Hooks that somebody else had put on the model are gone after the run{when}.",
        actual=("gone", gone),
        returned=f"{gone} hooks of others gone",
        expected="none gone",
    )
    for handle in theirs:
        handle.remove()
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


def expect_no_graph(result, what="Your result"):
    """Expect a result that holds on to none of the run that gave it."""
    tied = result.requires_grad
    expect(not tied, f"{what} has a graph: the whole run is kept in memory with it.", actual=tied)


def accepted(answer, *args, **kwargs):
    """The answer's result on good input; who refuses it is told so, whatever the words of the refusal."""
    try:
        return answer(*args, **kwargs)
    except AnswerRaised as raised:
        refused = isinstance(raised.__cause__, ValueError)
        expect(not refused, "Good input is refused.", actual="refused", returned=f"ValueError: {raised.__cause__}")
        raise


def outside(positions, n_pos):
    """Positions one of which is negative, and positions one of which is behind the end."""
    for bad in (-1, n_pos):
        wrong = positions.clone()
        wrong.view(-1)[-1] = bad
        yield wrong


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
