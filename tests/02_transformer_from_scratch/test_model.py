"""Checks of the transformer's modules, from the layer norm to the whole."""

from dataclasses import replace

import torch

from utils.course.checking import AnswerRaised, expect, expect_close, expect_shape
from utils.models.config import TransformerConfig

CFG = TransformerConfig(d_model=6, n_layers=2, n_heads=3, d_head=4, d_mlp=10, n_ctx=7, d_vocab=11)
# No two sizes here are equal, to each other or to those above; eps is large enough to show where it stands.
ODD = TransformerConfig(d_model=5, n_layers=3, n_heads=2, d_head=8, d_mlp=9, n_ctx=4, d_vocab=13, layer_norm_eps=0.3)
ONE = TransformerConfig(d_model=1, n_layers=1, n_heads=1, d_head=1, d_mlp=1, n_ctx=1, d_vocab=1)
BATCH = 3


def pair(answer, reference, cfg, rng, **fixed):
    """The learner's module and ours with the same random weights; ``fixed`` fills some with one number."""
    ours = reference(cfg)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    state = {name: 0.6 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    for ending, number in fixed.items():
        state |= {name: torch.full(shape, number) for name, shape in shapes.items() if name.endswith(ending)}
    ours.load_state_dict(state)
    theirs = answer(cfg)
    theirs.load(state)
    return theirs, ours


def stream(cfg, rng, n_pos=None, batch=BATCH):
    return torch.randn(batch, n_pos or cfg.n_ctx, cfg.d_model, generator=rng)


def token_ids(cfg, rng, n_pos=None, batch=BATCH):
    return torch.randint(cfg.d_vocab, (batch, n_pos or cfg.n_ctx), generator=rng)


def expect_names(theirs, ours):
    missing = sorted({name for name, _ in ours.named_parameters()} - set(theirs.parameter_names()))
    expect(
        not missing,
        "Each must be an `nn.Parameter` of its own; training changes nothing else.",
        actual=missing,
        returned=f"no parameter called {', '.join(missing)}",
    )


def expect_same_parameter_gradients(theirs, ours, inputs, rng):
    """Gradients of a random projection of the output, for every parameter by name; all that get none are told.

    Rounding grows with the terms that are added up, also where they cancel: the gradient for b_K is zero by the maths.
    So the tolerance is a share of the largest gradient of all.
    """
    wanted = ours(inputs)
    weights = torch.randn(wanted.shape, generator=rng)
    wanted = torch.autograd.grad((wanted * weights).sum(), list(ours.parameters()))
    out = theirs(inputs)
    expect_shape(out, tuple(weights.shape))
    parameters = dict(zip(theirs.parameter_names(), theirs.parameters(), strict=True))
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    expect(
        not frozen,
        "These parameters ask for no gradient (`requires_grad` is False), so training can't change them.",
        actual=("frozen", frozen),
        returned=", ".join(frozen),
    )
    gradients = [None] * len(parameters)
    if out.requires_grad:
        gradients = torch.autograd.grad((out * weights).sum(), list(parameters.values()), allow_unused=True)
    found = dict(zip(parameters, gradients, strict=True))
    cut = [name for name, _ in ours.named_parameters() if found.get(name) is None]
    expect(
        not cut,
        f"No gradient reaches {', '.join(cut)}: no `nn.Parameter`, or the output does not depend on it, or something "
        "between (`detach`, `.data`, `torch.no_grad`) cuts the graph.",
        actual=("cut graph", cut),
        returned=f"no gradient for {', '.join(cut)}",
    )
    atol = 1e-5 * max(1.0, *(gradient.abs().max().item() for gradient in wanted))
    for (name, _), expected in zip(ours.named_parameters(), wanted, strict=True):
        expect_close(found[name], expected, note=f"The gradient for {name} differs.", rtol=1e-4, atol=atol)


def expect_same_input_gradient(theirs, ours, resid, rng, rtol, atol):
    """The gradient of a random projection of the output, for the input, whatever the learner calls it."""
    resid.requires_grad_()
    wanted = ours(resid)
    weights = torch.randn(wanted.shape, generator=rng)
    (wanted,) = torch.autograd.grad((wanted * weights).sum(), resid)
    out = theirs(resid)
    expect_shape(out, tuple(weights.shape))
    found = torch.autograd.grad((out * weights).sum(), resid, allow_unused=True)[0] if out.requires_grad else None
    expect(
        found is not None,
        "No gradient reaches the input: something in your code cuts the graph (`detach`, `.data` or `torch.no_grad`).",
        actual="cut from the input",
        returned="no gradient for the input",
    )
    expect_close(found, wanted, note="The gradient for the input differs.", rtol=rtol, atol=atol)


def expect_initial_matrix(state, name):
    std, mean = state[name].std().item(), state[name].mean().item()
    side = "narrower" if std < 0.02 else "wider"
    # So that a diagnosis can tell these starts apart: zeros, 0.02 taken for the variance, standard normal, `rand`.
    starts = {0.0: 0.0, 0.02**0.5: 0.0, 1.0: 0.0, 0.02 / 12**0.5: 0.01}
    known = [s for s, m in starts.items() if abs(std - s) <= 0.05 * s and abs(mean - m) <= 0.2 * s]
    expect(
        0.017 < std < 0.023,
        f"{name} starts {side} than it should: normal with standard deviation 0.02.",
        actual=f"{name} {side} {known}",
        returned=f"standard deviation {std:.3f}",
        expected="standard deviation 0.020",
    )
    expect(abs(mean) < 0.003, f"{name} should start with mean 0.", returned=f"mean {mean:.3f}", expected="mean 0.000")
    largest = state[name].abs().max().item()
    expect(
        largest > 0.05,  # of 3600 normal numbers some 45 are
        f"{name} has the right standard deviation, but no large entries: this is not a normal distribution.",
        returned=f"largest entry {largest:.3f}",
    )


class TestLayerNorm:
    exercise = "LayerNorm"

    def test_parameters(self, answer, reference):
        "w starts as ones, b as zeros, both of shape [d_model]"
        for cfg in (CFG, ODD):
            theirs = answer(cfg)
            expect_close(theirs.state(), dict(reference(cfg).state_dict()))
            expect_names(theirs, reference(cfg))

    def test_values(self, answer, reference, rng):
        "the same values with random weights"
        for cfg in (CFG, ODD, ONE):
            theirs, ours = pair(answer, reference, cfg, rng)
            resid = 3 * stream(cfg, rng) + 1
            expect_close(theirs(resid), ours(resid))
            turned = stream(cfg, rng, n_pos=BATCH, batch=cfg.n_ctx).transpose(0, 1)
            expect_close(theirs(turned), ours(turned))

    def test_eps(self, answer, reference, rng):
        "eps is the config's, and is added to the variance before the root"
        for cfg in (CFG, ODD):
            theirs, ours = pair(answer, reference, cfg, rng)
            resid = 1e-3 * stream(cfg, rng)
            expect_close(
                theirs(resid), ours(resid), note="For a vector of tiny variance, eps decides the size of the output"
            )

    def test_constant_vector(self, answer, reference, rng):
        "a vector of equal numbers becomes b, not NaN"
        theirs, ours = pair(answer, reference, CFG, rng)
        out = theirs(torch.full((BATCH, 2, CFG.d_model), 2.0))
        # A rounding of 1e-7 in the difference to the mean, over the root of eps.
        expect_close(out, ours.b.detach().expand(BATCH, 2, CFG.d_model), atol=5e-4)

    def test_invariance(self, answer, reference, rng):
        "the same output if a constant is added to all coordinates of a vector"
        theirs, ours = pair(answer, reference, CFG, rng)
        resid = stream(CFG, rng)
        expect_close(
            theirs(resid + 1.5), ours(resid), atol=2e-5, note="Adding 1.5 to every coordinate changes your output"
        )
        expect_close(
            theirs(resid + 1000), ours(resid), atol=5e-3, note="Adding 1000 to every coordinate changes your output"
        )  # beside 1000, float32 numbers lie 6e-5 apart

    def test_positions(self, answer, reference, rng):
        "each position is normalised by itself"
        theirs, ours = pair(answer, reference, CFG, rng)
        resid = stream(CFG, rng)
        alone = theirs(resid[1:2, 2:3])
        expect_close(alone, ours(resid)[1:2, 2:3], note="A position in a batch of its own comes out different")
        resid[0] += 4 * stream(CFG, rng)[0]
        expect_close(
            theirs(resid)[1:2, 2:3], alone, note="One sequence's output changes with another sequence in the batch"
        )

    def test_gradients(self, answer, reference, rng):
        "gradients reach w, b and the input"
        theirs, ours = pair(answer, reference, CFG, rng)
        expect_same_parameter_gradients(theirs, ours, stream(CFG, rng), rng)
        expect_same_input_gradient(theirs, ours, stream(CFG, rng), rng, rtol=1e-4, atol=1e-5)


class TestMLP:
    exercise = "MLP"

    def test_parameters(self, answer, reference):
        "four parameters: matrices normal with standard deviation 0.02, biases zero"
        cfg = replace(CFG, d_model=40, d_mlp=90)
        theirs, ours = answer(cfg), reference(cfg)
        state = theirs.state()
        theirs.load(ours.state_dict())
        expect_names(theirs, ours)
        for name in ("W_in", "W_out"):
            expect_initial_matrix(state, name)
        for name in ("b_in", "b_out"):
            expect_close(state[name], torch.zeros_like(state[name]), note=f"{name} should start at zero")
        expect(
            not torch.equal(answer(cfg).state()["W_in"], state["W_in"]),
            "Two MLPs made one after the other start with the same numbers; each draws its own.",
            actual="the same twice",
        )

    def test_values(self, answer, reference, rng):
        "the same values with random weights and biases"
        for cfg in (CFG, ODD, ONE):
            theirs, ours = pair(answer, reference, cfg, rng)
            resid = stream(cfg, rng)
            expect_close(theirs(resid), ours(resid), atol=2e-5)
            turned = stream(cfg, rng, n_pos=BATCH, batch=cfg.n_ctx).transpose(0, 1)
            expect_close(theirs(turned), ours(turned), atol=2e-5)

    def test_one_neuron(self, answer, reference, rng):
        "one neuron's activation is GPT-2's GELU"
        theirs, ours = pair(answer, reference, ONE, rng, b_in=0.0, b_out=0.0, W_in=1.0, W_out=1.0)
        pre = torch.linspace(-4, 4, 33).reshape(1, 33, 1)
        expect_close(
            theirs(pre), ours(pre), note="With weights 1 and biases 0 the output is the activation function itself"
        )

    def test_writes_only(self, answer, reference, rng):
        "with W_out = 0 it writes b_out and nothing else"
        theirs, ours = pair(answer, reference, CFG, rng, W_out=0.0)
        expect_close(theirs(stream(CFG, rng)), ours.b_out.detach().expand(BATCH, CFG.n_ctx, CFG.d_model))

    def test_positions(self, answer, reference, rng):
        "each position by itself"
        theirs, ours = pair(answer, reference, CFG, rng)
        resid = stream(CFG, rng)
        expect_close(
            theirs(resid[1:2, 2:3]),
            ours(resid)[1:2, 2:3],
            atol=2e-5,
            note="A position in a batch of its own comes out different",
        )

    def test_gradients(self, answer, reference, rng):
        "gradients reach all four parameters and the input"
        theirs, ours = pair(answer, reference, CFG, rng)
        expect_same_parameter_gradients(theirs, ours, stream(CFG, rng), rng)
        expect_same_input_gradient(theirs, ours, stream(CFG, rng), rng, rtol=1e-4, atol=2e-5)


class TestAttention:
    exercise = "Attention"

    def test_values(self, answer, reference, rng):
        "the same values with random weights and biases"
        for cfg in (CFG, ODD, ONE):
            theirs, ours = pair(answer, reference, cfg, rng)
            expect_names(theirs, ours)
            resid = stream(cfg, rng)
            expect_close(theirs(resid), ours(resid), rtol=1e-4, atol=2e-5)

    def test_lengths(self, answer, reference, rng):
        "sequences of any length: 1, shorter than n_ctx, longer"
        theirs, ours = pair(answer, reference, CFG, rng)
        for n_pos in (1, 3, CFG.n_ctx + 2):
            resid = stream(CFG, rng, n_pos=n_pos)
            expect_close(theirs(resid), ours(resid), rtol=1e-4, atol=2e-5)

    def test_output_bias(self, answer, reference, rng):
        "with W_O = 0 it writes b_O, once, and nothing else"
        theirs, ours = pair(answer, reference, CFG, rng, W_O=0.0)
        expect_close(theirs(stream(CFG, rng)), ours.b_O.detach().expand(BATCH, CFG.n_ctx, CFG.d_model))

    def test_causal(self, answer, reference, rng):
        "no position sees a later one"
        theirs, ours = pair(answer, reference, CFG, rng)
        resid = stream(CFG, rng)
        changed = torch.cat([resid[:, :3], stream(CFG, rng)[:, 3:]], dim=1)
        expect_close(
            theirs(changed)[:, :3],
            ours(resid)[:, :3],
            rtol=1e-4,
            atol=2e-5,
            note="The first three positions' output changes when later positions do",
        )

    def test_gradients(self, answer, reference, rng):
        "gradients reach all eight parameters and the input"
        theirs, ours = pair(answer, reference, CFG, rng)
        expect_same_parameter_gradients(theirs, ours, stream(CFG, rng), rng)
        expect_same_input_gradient(theirs, ours, stream(CFG, rng), rng, rtol=1e-3, atol=5e-5)


class TestTransformerBlock:
    exercise = "TransformerBlock"

    def test_parameters(self, answer, reference, rng):
        "ln1, attn, ln2 and mlp, each with parameters of its own"
        for cfg in (CFG, ODD):
            theirs, ours = pair(answer, reference, cfg, rng)
            expect_names(theirs, ours)
            expect_close(theirs.state(), dict(ours.state_dict()))

    def test_values(self, answer, reference, rng):
        "the same values with random weights"
        for cfg in (CFG, ODD, ONE):
            theirs, ours = pair(answer, reference, cfg, rng)
            resid = 2 * stream(cfg, rng)
            expect_close(theirs(resid), ours(resid), rtol=1e-4, atol=5e-5)

    def test_stream_passes(self, answer, reference, rng):
        "what comes in goes out again if attention and MLP write nothing"
        theirs, _ = pair(answer, reference, CFG, rng, W_O=0.0, b_O=0.0, W_out=0.0, b_out=0.0)
        resid = 5 * stream(CFG, rng)
        expect_close(
            theirs(resid), resid, note="With all output weights zero, a block should hand the stream on unchanged"
        )

    def test_without_mlp(self, answer, reference, rng):
        "with d_mlp = 0: ln1 and attn, and nothing else"
        theirs, ours = pair(answer, reference, replace(CFG, d_mlp=0), rng)
        resid = 2 * stream(CFG, rng)
        expect_close(theirs(resid), ours(resid), rtol=1e-4, atol=5e-5, note="This is with d_mlp = 0")

    def test_attention_alone(self, answer, reference, rng):
        "attention reads ln1 of the stream and adds to it"
        theirs, ours = pair(answer, reference, CFG, rng, W_out=0.0, b_out=0.0)
        resid = 5 * stream(CFG, rng)
        expect_close(theirs(resid), ours(resid), rtol=1e-4, atol=5e-5, note="This is with an MLP that writes nothing")

    def test_mlp_alone(self, answer, reference, rng):
        "the MLP reads ln2 of the stream and adds to it"
        theirs, ours = pair(answer, reference, ODD, rng, W_O=0.0, b_O=0.0)
        resid = 5 * stream(ODD, rng)
        expect_close(
            theirs(resid), ours(resid), rtol=1e-4, atol=5e-5, note="This is with attention that writes nothing"
        )

    def test_gradients(self, answer, reference, rng):
        "gradients reach every parameter and the input"
        theirs, ours = pair(answer, reference, CFG, rng)
        expect_same_parameter_gradients(theirs, ours, stream(CFG, rng), rng)
        expect_same_input_gradient(theirs, ours, stream(CFG, rng), rng, rtol=1e-3, atol=1e-4)


class TestTransformer:
    exercise = "Transformer"

    def test_parameters(self, answer, reference, rng):
        "the standard names and shapes, each layer with weights of its own"
        for cfg in (CFG, ODD):
            theirs, ours = pair(answer, reference, cfg, rng)
            expect_close(theirs.state(), dict(ours.state_dict()), note="Weights that were loaded come out changed")
            expect_names(theirs, ours)

    def test_values(self, answer, reference, rng):
        "the same logits with random weights"
        for cfg in (CFG, ODD, ONE):
            theirs, ours = pair(answer, reference, cfg, rng)
            tokens = token_ids(cfg, rng)
            expect_close(theirs(tokens), ours(tokens), rtol=1e-3, atol=1e-4)

    def test_no_blocks(self, answer, reference, rng):
        "with no blocks: embeddings, final layer norm, unembedding"
        cfg = replace(CFG, n_layers=0)
        theirs, ours = pair(answer, reference, cfg, rng)
        tokens = token_ids(cfg, rng)
        expect_close(theirs(tokens), ours(tokens), rtol=1e-4, atol=5e-5)

    def test_lengths(self, answer, reference, rng):
        "sequences shorter than n_ctx, and batches of one"
        theirs, ours = pair(answer, reference, CFG, rng)
        for batch, n_pos in ((1, 1), (2, 4)):
            tokens = token_ids(CFG, rng, n_pos=n_pos, batch=batch)
            expect_close(theirs(tokens), ours(tokens), rtol=1e-3, atol=1e-4)

    def test_too_long(self, answer, reference, rng):
        "a sequence longer than n_ctx is an error"
        theirs, _ = pair(answer, reference, CFG, rng)
        try:
            out = theirs(token_ids(CFG, rng, n_pos=CFG.n_ctx + 2))
        except AnswerRaised:
            return
        note = "A sequence longer than n_ctx went through, though W_pos has no row for its last positions."
        expect(False, note, actual=out, expected="an error")

    def test_causal(self, answer, reference, rng):
        "logits at a position do not depend on later tokens"
        theirs, ours = pair(answer, reference, CFG, rng)
        tokens = token_ids(CFG, rng)
        changed = torch.cat([tokens[:, :3], (tokens[:, 3:] + 1) % CFG.d_vocab], dim=1)
        expect_close(theirs(changed)[:, :3], ours(tokens)[:, :3], rtol=1e-3, atol=1e-4)

    def test_gradients(self, answer, reference, rng):
        "gradients reach every parameter"
        theirs, ours = pair(answer, reference, CFG, rng)
        expect_same_parameter_gradients(theirs, ours, token_ids(CFG, rng), rng)
