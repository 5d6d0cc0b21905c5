"""The references of part 05b against libraries, closed forms, and the algebra of linear models."""

import itertools
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from utils.circuits.effects import direct_effects, heads_replaced, outputs_at
from utils.circuits.ioi import answer_difference, gift_templates, ioi_dataset, text_templates
from utils.circuits.overlap import circuit_overlap
from utils.circuits.paths import path_patch
from utils.circuits.repair import self_repair
from utils.circuits.roles import copy_score, name_mover_scores
from utils.course.paths import load_file
from utils.data.prompts import giving_roles, token_id
from utils.data.world import NAMES
from utils.lenses.attribution import direct_logit_attribution
from utils.lenses.stream import residual_components
from utils.models.course_model import load_course_model
from utils.models.phenomena import ioi as measured
from utils.patching.hooks import run_with_cache, run_with_hooks

common = load_file(Path(__file__).with_name("common_ioi.py"))


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


@pytest.fixture(scope="module")
def gifts():
    names = torch.tensor([token_id(name) for name in NAMES])
    return ioi_dataset(gift_templates(20, 0), names, 40, torch.Generator().manual_seed(0))


class LinearAttention(nn.Module):
    """Heads that look everywhere alike in what came before: what they put out is linear in the stream."""

    def __init__(self, d_model, n_heads, d_head):
        super().__init__()
        self.W_V, self.W_O = (
            nn.Parameter(torch.zeros(n_heads, d_model, d_head)),
            nn.Parameter(torch.zeros(n_heads, d_head, d_model)),
        )
        self.hook_v, self.hook_z = nn.Identity(), nn.Identity()

    def forward(self, x):
        v = self.hook_v(torch.einsum("bpm,hmd->bphd", x, self.W_V))
        z = self.hook_z(v.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None, None])
        return torch.einsum("bphd,hdm->bpm", z, self.W_O)


class LinearBlock(nn.Module):
    def __init__(self, d_model, n_heads, d_head):
        super().__init__()
        self.attn, self.W = LinearAttention(d_model, n_heads, d_head), nn.Parameter(torch.zeros(d_model, d_model))
        self.hook_mlp_out, self.hook_resid_post = nn.Identity(), nn.Identity()

    def forward(self, x):
        x = x + self.attn(x)
        return self.hook_resid_post(x + self.hook_mlp_out(x @ self.W))


class Linear(nn.Module):
    """A model in which everything is linear: no norms, no patterns, MLPs that are matrices."""

    def __init__(self, rng, n_layers=3, d_model=6, n_heads=2, d_head=3, d_vocab=9):
        super().__init__()
        self.W_E, self.W_U = nn.Parameter(torch.zeros(d_vocab, d_model)), nn.Parameter(torch.zeros(d_model, d_vocab))
        self.blocks = nn.ModuleList(LinearBlock(d_model, n_heads, d_head) for _ in range(n_layers))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.6 * torch.randn(parameter.shape, generator=rng))
        self.double()

    def forward(self, tokens):
        x = self.W_E[tokens]
        for block in self.blocks:
            x = block(x)
        return x @ self.W_U


def test_in_a_linear_model_the_first_steps_add_up_to_the_whole(rng):
    """Each way from the sender begins with one step: over all of them, path patching gives what patching gives."""
    model = Linear(rng)
    tokens, corrupted = (torch.randint(9, (4, 6), generator=rng) for _ in range(2))
    positions = torch.tensor([0, 3, 5, 2])
    sender = ("blocks.0.attn.hook_z", 1)
    receivers = [("logits", None), *((f"blocks.{layer}.hook_mlp_out", None) for layer in range(3))]
    receivers += [(f"blocks.{layer}.attn.hook_v", head) for layer in (1, 2) for head in range(2)]
    with torch.no_grad():
        clean = model(tokens)
        steps = [path_patch(model, tokens, corrupted, [sender], [r], positions=positions) - clean for r in receivers]
        _, other = run_with_cache(model, corrupted, [sender[0]])
        _, own = run_with_cache(model, tokens, [sender[0]])

        def put(z):
            changed = z.clone()
            changed[torch.arange(4), positions, 1] = other[sender[0]][torch.arange(4), positions, 1]
            return changed

        whole = run_with_hooks(model, tokens, [(sender[0], put)]) - clean
        assert torch.allclose(sum(steps), whole, atol=1e-10)
        # The direct step in closed form: what is written otherwise, times the unembedding; and through one MLP.
        written = torch.zeros(4, 6, 6, dtype=torch.float64)
        rows = torch.arange(4)
        change = other[sender[0]][rows, positions, 1] - own[sender[0]][rows, positions, 1]
        written[rows, positions] = change @ model.blocks[0].attn.W_O[1]
        assert torch.allclose(steps[0], written @ model.W_U, atol=1e-10)
        last = (
            path_patch(model, tokens, corrupted, [("blocks.2.attn.hook_z", 0)], [("blocks.2.hook_mlp_out", None)])
            - clean
        )
        name = "blocks.2.attn.hook_z"
        _, other = run_with_cache(model, corrupted, [name])
        _, own = run_with_cache(model, tokens, [name])
        written = (other[name] - own[name])[:, :, 0] @ model.blocks[2].attn.W_O[0]
        assert torch.allclose(last, written @ model.blocks[2].W @ model.W_U, atol=1e-10)


def test_direct_paths_to_queries_keys_and_values_are_those_of_transformer_lens(rng):
    """Without norms the library's linear formula is exact; it runs the other way, from clean into corrupted."""
    import warnings

    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.tools.analysis.direct_path_patching import get_act_patch_direct_path

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = HookedTransformerConfig(
            d_model=10, n_layers=3, n_heads=2, d_head=4, d_mlp=8, n_ctx=9, d_vocab=13, act_fn="relu",
            normalization_type=None, device="cpu", seed=0,
        )  # fmt: skip
        model = HookedTransformer(cfg).requires_grad_(False)
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=rng))
        tokens, corrupted = (torch.randint(13, (3, 7), generator=rng) for _ in range(2))
        _, clean_cache = model.run_with_cache(tokens)
        _, other_cache = model.run_with_cache(corrupted)
        ones = {f"blocks.{layer}.ln1.hook_scale": torch.ones(3, 7, 1) for layer in range(3)}

        class WithScales:
            """The library asks for the norms' divisors, and this model has none."""

            def __init__(self, cache):
                self.cache = cache

            def __getitem__(self, name):
                return ones[name] if name in ones else self.cache[name]

            def __getattr__(self, name):
                return getattr(self.cache, name)

        def metric(logits):
            return logits[:, -1, 3].sum() + logits[:, 2, 5].sum()

        for kind in "qkv":
            theirs = get_act_patch_direct_path(
                model, tokens, WithScales(other_cache), WithScales(clean_cache), metric, 0, 1, kind, verbose=False
            )
            for layer, head in itertools.product((1, 2), range(2)):
                receivers = [(f"blocks.{layer}.attn.hook_{kind}", head)]
                ours = metric(path_patch(model, tokens, corrupted, [("blocks.0.attn.hook_z", 1)], receivers))
                assert ours.item() == pytest.approx(theirs[layer, head].item(), abs=1e-3)


def test_the_direct_route_of_the_course_model_is_a_changed_last_stream(model, gifts):
    """The unembedding as receiver: the last stream and what the head writes otherwise, through the norm, and no run."""
    prompts, at = gifts
    rows, end, name = torch.arange(40), at["END"], "blocks.3.hook_resid_post"
    own, other = (outputs_at(model, prompts[kind], end)[:, 1, 3] for kind in ("clean", "giver swapped"))
    _, cache = run_with_cache(model, prompts["clean"], [name])
    stream = cache[name][rows, end] + (other - own) @ model.W_O[1, 3]
    expected = model.unembed(model.ln_final(stream[:, None]))[:, 0]
    found = path_patch(
        model,
        prompts["clean"],
        prompts["giver swapped"],
        [("blocks.1.attn.hook_z", 3)],
        [("logits", None)],
        positions=end,
    )
    assert torch.allclose(found[rows, end], expected, atol=1e-3)


def test_small_steps_agree_with_the_derivative(model, gifts):
    """A sender changed a little: the route to the queries of layer 3 is the gradient there times the change there."""
    prompts, at = gifts
    clean, rows, end = prompts["clean"][:8], torch.arange(8), at["END"][:8]
    where = {name: place[:8] for name, place in at.items()}
    site, query = "blocks.1.attn.hook_z", "blocks.3.attn.hook_q"
    own, other = (outputs_at(model, prompts[kind][:8], end)[:, 1, 3] for kind in ("clean", "giver swapped"))
    small = 1e-3
    # By hand: the stream before layer 3 with the small change, its queries; and the lead's gradient at the queries.
    before = "blocks.3.hook_resid_pre"
    _, cache = run_with_cache(model, clean, [before, query])
    changed = cache[before].clone()
    changed[rows, end] += small * (other - own) @ model.W_O[1, 3]
    block = model.blocks[3]
    step = (block.ln1(changed) - block.ln1(cache[before])) @ block.attn.W_Q[2]
    leaf = cache[query].clone().requires_grad_()
    with torch.enable_grad():
        lead = answer_difference(run_with_hooks(model, clean, [(query, lambda q: leaf)]), clean, where).sum()
        (slope,) = torch.autograd.grad(lead, leaf)
    expected = (slope[:, :, 2] * step).sum((1, 2))

    # The corrupted run is one in which the sender puts out nearly what it does in the clean one.
    flag = {"corrupted": False}
    handle = model.get_submodule(site).register_forward_hook(
        lambda module, inputs, z: small_step(z, own, other, small, end) if flag["corrupted"] else z
    )
    try:
        corrupted = prompts["giver swapped"][:8]

        def watch(module, inputs):
            flag["corrupted"] = torch.equal(inputs[0], corrupted)

        watching = model.register_forward_pre_hook(watch)
        logits = path_patch(model, clean, corrupted, [(site, 3)], [(query, 2)], positions=end)
        watching.remove()
    finally:
        handle.remove()
    found = answer_difference(logits, clean, where) - answer_difference(model(clean), clean, where)
    assert torch.allclose(found, expected, rtol=0.05, atol=2e-4)


def small_step(z, own, other, small, end):
    changed = z.clone()
    changed[torch.arange(len(z)), end, 3] = own + small * (other - own)
    return changed


def test_direct_effects_are_those_of_part_03b(model, gifts):
    prompts, at = gifts
    clean, rows = prompts["clean"], torch.arange(40)
    parts = {name: value[rows, at["END"]] for name, value in residual_components(model, clean).items()}
    theirs = direct_logit_attribution(model, parts, clean[rows, at["IO"]], clean[rows, at["S2"]])
    ours, scores = direct_effects(model, clean, clean, at), name_mover_scores(model, clean, at)["direct"]
    for layer, head in common.all_heads(model):
        assert torch.allclose(ours.heads[:, layer, head], theirs[f"head {layer}.{head}"], atol=1e-3)
        assert torch.allclose(scores[:, layer, head], theirs[f"head {layer}.{head}"], atol=1e-3)
    for layer in range(4):
        assert torch.allclose(ours.mlps[:, layer], theirs[f"mlp {layer}"], atol=1e-3)
    assert torch.allclose(ours.total(), answer_difference(model(clean), clean, at), atol=1e-3)


def test_copy_scores_are_those_of_the_models_card(model):
    names = torch.tensor([token_id(name) for name in NAMES])
    tokens = torch.stack([torch.zeros_like(names), torch.full_like(names, token_id("Then")), names], dim=1)
    for sign in (1, -1):
        theirs = measured.copy_scores(model, sign=sign)
        for layer, head in common.all_heads(model):
            assert copy_score(model, layer, head, tokens, sign=sign).item() == pytest.approx(
                theirs[layer, head].item(), abs=1e-6
            )


def test_self_repair_is_that_of_the_models_card(model):
    from utils.data.prompts import ioi_prompts
    from utils.models.phenomena.measuring import to_batch

    batch = to_batch(ioi_prompts(60, 0))
    means = measured.mean_outputs(model, batch, 0)
    effects = measured.direct_effects(model, batch)
    theirs = measured.self_repair(model, batch, means, [(3, 2), (3, 1)], effects, 0)["top 2"]
    at = {name: batch.at[name] for name in ("IO", "S1", "S2", "END")}
    ours = self_repair(model, batch.tokens, at, [(3, 2), (3, 1)], means)
    lost = ours["lost"].mean().item()
    assert ours["fall"].mean().item() == pytest.approx(theirs["fall"]["value"], abs=1e-3)
    assert lost == pytest.approx(theirs["lost"]["value"], abs=1e-3)
    for name, values in (
        ("heads", ours["heads"].sum((1, 2))),
        ("MLPs", ours["mlps"].sum(1)),
        ("the layer norm", ours["norm"]),
    ):
        assert values.mean().item() / lost == pytest.approx(theirs[f"made up by {name}"]["value"], abs=1e-3)


def test_no_order_of_heads_has_more_in_common_than_the_sorted_one(rng):
    for _ in range(20):
        first, second = (torch.randn(3, 5, generator=rng, dtype=torch.float64) for _ in range(2))
        a, b = first / first.abs().sum(), second / second.abs().sum()
        pairs = torch.where(a[:, :, None] * b[:, None] > 0, torch.minimum(a[:, :, None].abs(), b[:, None].abs()), 0.0)
        best = sum(float(table[linear_sum_assignment(table.numpy(), maximize=True)].sum()) for table in pairs)
        assert circuit_overlap(first, second, 0, rng)[0] == pytest.approx(best / (2 - best), abs=1e-9)


def test_the_prompts_are_scenes_whose_roles_the_parser_reads(gifts, model):
    """In the clean prompts S gives and is said twice; in the others what the table says."""
    prompts, at = gifts
    rows = torch.arange(40)
    for i in range(40):
        io, s = (model.to_string(prompts["clean"][i, at[place][i]]) for place in ("IO", "S2"))
        read = {
            name: giving_roles(model.to_string(tokens[i, 1 : at["END"][i] + 1])) for name, tokens in prompts.items()
        }
        assert (read["clean"].giver, read["clean"].repeated) == (s, (s,))
        assert (read["giver swapped"].giver, read["giver swapped"].repeated) == (io, (io,))
        assert read["names swapped"].giver == io and list(read["names swapped"].said) == list(read["clean"].said)[::-1]
        assert read["said once"].giver == s and not read["said once"].repeated
        assert read["ABC"].giver not in (io, s) and not read["ABC"].repeated
        assert not {io, s} & set(read["random names"].said) and len(read["random names"].said) == 3
    assert bool((prompts["clean"][rows, at["END"]] == prompts["random names"][rows, at["END"]]).all())


def test_templates_from_text_have_their_three_places(model):
    class Tokenizer:
        """A tokenizer of whole words."""

        ids = {}

        def to_tokens(self, text):
            return torch.tensor([[0, *(self.ids.setdefault(word, len(self.ids) + 1) for word in text.split())]])

        def to_single_token(self, text):
            return self.ids.setdefault(text.strip(), len(self.ids) + 1)

    found = text_templates(Tokenizer(), ["When <1> and <2> met , <3> gave", "Then <2> or <1> went ; <3> took it"])
    assert [sorted(row[row < 0].tolist()) for row in found] == [[-3, -2, -1]] * 2
    assert found[0].tolist().index(-1) == 2 and found[1].tolist().index(-1) == 4


def test_replaced_heads_leave_the_others_alone(model, gifts):
    prompts, at = gifts
    clean, outputs = prompts["clean"], outputs_at(model, prompts["ABC"], at["END"])
    seen = {}
    hooks = heads_replaced([(1, 3), (3, 0)], outputs, at["END"])
    keep = [(name, lambda z, name=name: seen.setdefault(name, z)) for name in ("blocks.1.attn.hook_z",)]
    run_with_hooks(model, clean, [*hooks, *keep])
    _, cache = run_with_cache(model, clean, ["blocks.1.attn.hook_z"])
    changed = (seen["blocks.1.attn.hook_z"] != cache["blocks.1.attn.hook_z"]).any(-1).nonzero()
    assert {(int(p), int(h)) for _, p, h in changed} <= {(int(end), 3) for end in at["END"]} and len(changed) == 40
