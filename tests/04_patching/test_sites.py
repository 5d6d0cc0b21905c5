"""Checks of patches and their relatives: sites, sweeps, denoising and noising, ablations, attribution patching."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file
from utils.patching.networks import LogicNetwork, SmallTransformer
from utils.patching.sites import patch_sweep

common = load_file(Path(__file__).with_name("common.py"))
cases, counted, kept, replaced = common.cases, common.counted, common.kept, common.replaced
drawn_positions, expect_refused, metric_of, untouched = (
    common.drawn_positions, common.expect_refused, common.metric_of, common.untouched
)  # fmt: skip
CLOSE = common.CLOSE
# The last one computes something: what goes into it and what comes out of it differ.
NAMES = ("blocks.0.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.0.mlp")
Z = "blocks.1.attn.hook_z"


class TestPatchSite:
    exercise = "patch_site"

    def test_whole(self, answer, reference, rng):
        "a whole activation from the other run"
        for model, tokens, others in cases(rng):
            for name, source in kept(model, others, NAMES).items():
                expect_close(answer(model, tokens, name, source), reference(model, tokens, name, source), **CLOSE)

    def at_positions(self, answer, reference, model, tokens, others, positions):
        for name, source in kept(model, others, NAMES).items():
            expect_close(
                answer(model, tokens, name, source, positions=positions),
                reference(model, tokens, name, source, positions=positions), **CLOSE,
            )  # fmt: skip

    def test_positions(self, answer, reference, rng):
        "at one position of each prompt, which may be another in each"
        for model, tokens, others in cases(rng):
            self.at_positions(answer, reference, model, tokens, others, drawn_positions(rng, tokens))

    def test_first(self, answer, reference, rng):
        "at position 0 of every prompt, and at position 1"
        for model, tokens, others in cases(rng):
            for name, source in kept(model, others, NAMES).items():
                places = [torch.full((len(tokens),), at) for at in (0, 1)]
                found = [answer(model, tokens, name, source, positions=at) for at in places]
                wanted = [reference(model, tokens, name, source, positions=at) for at in places]
                # In one comparison: who takes zeros for None differs in the first, who patches what follows in both.
                expect_close(found, wanted, **CLOSE)

    def each_head(self, answer, reference, rng, at):
        for model, tokens, others in cases(rng):
            source = kept(model, others, [Z])[Z]
            positions, heads = at(rng, tokens), range(source.shape[2])
            found = [answer(model, tokens, Z, source, positions=positions, head=head) for head in heads]
            wanted = [reference(model, tokens, Z, source, positions=positions, head=head) for head in heads]
            # All heads in one comparison: who patches them all whatever head is asked for differs in each entry.
            expect_close(
                found,
                wanted,
                note="We asked for each head in turn, to be patched; entry i is the run for head i",
                **CLOSE,
            )

    def test_heads(self, answer, reference, rng):
        "one head alone, at all positions"
        self.each_head(answer, reference, rng, lambda rng, tokens: None)

    def test_heads_at_positions(self, answer, reference, rng):
        "one head alone, at one position of each prompt"
        self.each_head(answer, reference, rng, drawn_positions)

    def test_bypass(self, answer, reference, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        model = common.Bypass(rng)
        tokens, others = torch.randint(7, (2, 3, 5), generator=rng)
        source, at = kept(model, others, ["hook"])["hook"], drawn_positions(rng, tokens)
        expect_close(
            answer(model, tokens, "hook", source, positions=at), reference(model, tokens, "hook", source, positions=at),
            note="What goes past the hook point has changed too",
        )  # fmt: skip
        heads = source.unflatten(-1, (2, 2))
        expect_close(
            answer(model, tokens, "hook_heads", heads, head=1), reference(model, tokens, "hook_heads", heads, head=1),
            note="What goes past the hook point with heads has changed too",
        )  # fmt: skip

    def test_endpoints(self, answer, rng):
        "its own activation changes nothing; the other run's whole last stream gives the other run's output"
        for model, tokens, others in cases(rng):
            name = f"blocks.{len(model.blocks) - 1}.hook_resid_post"
            for n in (len(tokens), 1):
                own, other = (kept(model, x[:n], [name])[name] for x in (tokens, others))
                expect_close(answer(model, tokens[:n], name, own), model(tokens[:n]), **CLOSE)
                expect_close(answer(model, tokens[:n], name, other), model(others[:n]), **CLOSE)

    def test_gradients(self, answer, reference, rng):
        "gradients reach the source, and nothing of it that is not put in"
        for model, tokens, others in cases(rng):
            source, at = kept(model, others, [Z])[Z], drawn_positions(rng, tokens)
            choices = [{}, {"head": 1}, {"positions": at}, {"positions": at, "head": 1}]

            def slope(function, choice, model=model, tokens=tokens, source=source):
                leaf = source.clone().requires_grad_()
                out = function(model, tokens, Z, leaf, **choice)
                expect(out.requires_grad, "Your run leaves no graph behind.", actual="no graph")
                return torch.autograd.grad(out.square().sum(), leaf, allow_unused=True)[0]

            for choice in choices:
                found, wanted = slope(answer, choice), slope(reference, choice)
                expect(found is not None, "No gradient reaches `source`.", actual="source is cut off")
                expect_close(found, wanted, rtol=1e-4, atol=1e-3, note="The gradient for `source` differs")

    def test_positions_outside(self, answer, rng):
        "positions outside the prompts are refused, negative ones too"
        for model, tokens, others in cases(rng):
            flat = kept(model, others, NAMES[1:2])[NAMES[1]]
            for wrong in common.outside(drawn_positions(rng, tokens), tokens.shape[1]):
                expect_refused(answer, model, tokens, NAMES[1], flat, positions=wrong)

    def test_head_outside(self, answer, rng):
        "a head that is not there is refused, a negative one too"
        for model, tokens, others in cases(rng):
            heads = kept(model, others, [Z])[Z]
            for head in (-1, heads.shape[2]):
                expect_refused(answer, model, tokens, Z, heads, head=head)

    def test_no_heads(self, answer, rng):
        "a head of an activation without heads is refused, head 0 too"
        for model, tokens, others in cases(rng):
            flat = kept(model, others, NAMES[1:2])[NAMES[1]]
            for head in (0, 1):
                expect_refused(answer, model, tokens, NAMES[1], flat, head=head)

    def test_shape(self, answer, rng):
        "a source of another shape is refused"
        model, tokens, others = next(cases(rng))
        flat = kept(model, others, NAMES[1:2])[NAMES[1]]
        for source in (flat[:1], flat[:, :1], flat[..., :1]):
            expect_refused(answer, model, tokens, NAMES[1], source)

    def test_pattern(self, answer, reference, rng):
        "an activation that does not begin with [batch, pos] is patched as a whole or not at all"
        model = common.SharedKeys(rng)
        tokens, others = torch.randint(7, (2, 3, 5), generator=rng)
        source = kept(model, others, ["hook_pattern"])["hook_pattern"]
        expect_close(
            answer(model, tokens, "hook_pattern", source), reference(model, tokens, "hook_pattern", source), **CLOSE
        )
        expect_refused(answer, model, tokens, "hook_pattern", source, positions=torch.tensor([0, 1, 3]))
        expect_refused(answer, model, tokens, "hook_pattern", source, head=1)

    def test_clean(self, answer, rng):
        "the model is as it was"
        for model, tokens, others in cases(rng):
            source = kept(model, others, NAMES[:1])[NAMES[0]]
            with untouched(model):
                answer(model, tokens, NAMES[0], source)


class TestPatchSweep:
    exercise = "patch_sweep"

    def test_positions(self, answer, reference, rng):
        "every position of every hook point, one at a time"
        for model, tokens, others in cases(rng):
            for names in ((*NAMES, "blocks.1.mlp.hook_post"), [Z]):
                source, metric = kept(model, others, names), metric_of(tokens)
                result = answer(model, tokens, source, metric)
                expect_shape(result, (len(names), tokens.shape[1], len(tokens)))
                expect_close(result, reference(model, tokens, source, metric), **CLOSE)

    def test_bypass(self, answer, reference, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        model = common.Bypass(rng)
        tokens, others = torch.randint(7, (2, 3, 5), generator=rng)
        source, metric = kept(model, others, ["hook"]), metric_of(tokens)
        expect_close(
            answer(model, tokens, source, metric), reference(model, tokens, source, metric),
            note="What goes past the hook point has changed too",
        )  # fmt: skip

    def test_heads(self, answer, reference, rng):
        "every head of every hook point, one at a time, at all positions"
        for model, tokens, others in cases(rng):
            source, metric = kept(model, others, [Z, "blocks.0.attn.hook_z"]), metric_of(tokens)
            result = answer(model, tokens, source, metric, over="head")
            expect_close(result, reference(model, tokens, source, metric, over="head"), **CLOSE)

    def test_chunks(self, answer, reference, rng):
        "no forward pass has more rows than max_rows, and the result does not depend on it"
        for model, tokens, others in list(cases(rng))[:1]:
            source, metric = kept(model, others, NAMES), metric_of(tokens)
            expected = reference(model, tokens, source, metric)
            for max_rows in (1, 4 * len(tokens) + 1):
                with counted(model) as rows:
                    result = answer(model, tokens, source, metric, max_rows=max_rows)
                most = max(rows, default=0)
                expect(
                    most <= max(max_rows, len(tokens)),
                    f"A forward pass has {most} rows where max_rows is {max_rows} and there are {len(tokens)} prompts.",
                    actual=most,
                )
                expect_close(result, expected, **CLOSE)

    def test_shared(self, answer, rng):
        "many sites share a forward pass"
        for model, tokens, others in cases(rng):
            source = kept(model, others, NAMES)
            with counted(model) as rows:
                answer(model, tokens, source, metric_of(tokens))
            sites, passes = len(NAMES) * tokens.shape[1], len(rows)
            expect(
                passes <= len(NAMES) + 1,
                f"Your sweep of {sites} sites takes {passes} forward passes. With {len(tokens)} prompts and room for "
                "512 rows, all the sites of a hook point fit into one.",
                actual=passes,
            )

    def test_causality(self, answer, rng):
        "one prompt: a metric that is read at position 1 feels patches at positions 0 and 1 only"
        for model, tokens, _ in cases(rng):
            one = tokens[:1]
            source = kept(model, (one + 1) % len(model.W_E), NAMES[:1])
            changes = answer(model, one, source, lambda z: z[:, 1, 0]) - model(one)[:, 1, 0]
            expect_shape(changes, (1, one.shape[1], 1))
            expect_close(changes[:, 2:], torch.zeros_like(changes[:, 2:]), **CLOSE)
            expect((changes[:, :2].abs() > 1e-6).any(), "No patch had any effect.", actual=changes)

    def test_metric(self, answer, rng):
        "the metric is given the logits of one patch at a time, of all prompts"
        for model, tokens, others in cases(rng):
            metric = metric_of(tokens)
            answer(model, tokens, kept(model, others, NAMES[:1]), metric)
            common.expect_all_prompts(metric, tokens)

    def test_over(self, answer, rng):
        "another word for `over` is refused"
        model, tokens, others = next(cases(rng))
        for name in (NAMES[0], Z):
            expect_refused(answer, model, tokens, kept(model, others, [name]), metric_of(tokens), over="layer")

    def test_no_heads(self, answer, rng):
        "heads of activations that have none are refused"
        model, tokens, others = next(cases(rng))
        expect_refused(answer, model, tokens, kept(model, others, NAMES[:1]), metric_of(tokens), over="head")

    def test_rows(self, answer, rng):
        "a source for another number of prompts is refused"
        model, tokens, others = next(cases(rng))
        expect_refused(answer, model, tokens, kept(model, others[:1], NAMES[:1]), metric_of(tokens))

    def test_lengths(self, answer, rng):
        "a source for prompts of another length is refused"
        model, tokens, others = next(cases(rng))
        expect_refused(answer, model, tokens, kept(model, others[:, :-1], NAMES[:1]), metric_of(tokens))

    def test_width(self, answer, rng):
        "a source of another width than its activation is refused"
        model, tokens, others = next(cases(rng))
        narrow = {name: x[..., :1] for name, x in kept(model, others, NAMES[:1]).items()}
        expect_refused(answer, model, tokens, narrow, metric_of(tokens))

    def test_slots(self, answer, rng):
        "sources with different numbers of heads, patterns, and no source at all, are refused"
        model = common.SharedKeys(rng)
        tokens, others = torch.randint(7, (2, 3, 5), generator=rng)
        found = kept(model, others, ["hook_k", "hook_q", "hook_pattern"])
        keys, queries, pattern = ({name: x} for name, x in found.items())
        for source in (keys | queries, queries | keys):
            expect_refused(answer, model, tokens, source, metric_of(tokens), over="head")
        expect_refused(answer, model, tokens, pattern, metric_of(tokens))
        expect_refused(answer, model, tokens, {}, metric_of(tokens))

    def test_clean(self, answer, rng):
        "the model is as it was, and nothing hangs in the graph"
        for model, tokens, others in cases(rng):
            source = kept(model, others, NAMES)
            with untouched(model):
                result = answer(model, tokens, source, metric_of(tokens))
            common.expect_no_graph(result, "Your sweep")


INPUTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
SUBSETS = ([], ["a"], ["b"], ["a", "b"])


class BothDirections:
    """What denoising and noising share."""

    def tables(self, answer, reference):
        for kind in ("and", "or"):
            network = LogicNetwork(kind)
            for names in SUBSETS:
                for i in range(4):
                    clean, corrupted = INPUTS[3:], INPUTS[i : i + 1]
                    expect_close(
                        answer(network, clean, corrupted, names), reference(network, clean, corrupted, names),
                        note=f"{kind.upper()} network, corrupted input {INPUTS[i].tolist()}, names {names}",
                    )  # fmt: skip

    def values(self, answer, reference, rng):
        for model, tokens, others in cases(rng):
            for names in (NAMES[1:], NAMES, [Z, "blocks.1.hook_mlp_out"]):
                expect_close(answer(model, tokens, others, names), reference(model, tokens, others, names), **CLOSE)

    # Without names there is no hook that could notice, and where a hook could, its error is the same.
    def shapes(self, answer, rng, change):
        for model, tokens, others in cases(rng):
            for names in ([], NAMES[:1]):
                expect_refused(answer, model, tokens, change(others), names)

    def other_width(self, answer):
        network, two, three = LogicNetwork("or"), torch.ones(1, 2), torch.zeros(1, 3)
        for pair in ((two, three), (three, two)):
            expect_raises(ValueError, answer, network, *pair, ["a"])

    def unknown(self, answer, rng):
        for model, tokens, others in cases(rng):
            for name in ("blocks.9.hook_mlp_out", "not_run"):
                expect_refused(answer, model, tokens, others, [name])

    def clean(self, answer, rng):
        for model, tokens, others in cases(rng):
            with untouched(model):
                answer(model, tokens, others, NAMES)


class TestDenoise(BothDirections):
    exercise = "denoise"

    def test_tables(self, answer, reference):
        "the truth tables of AND and OR, whichever parts are restored"
        self.tables(answer, reference)

    def test_values(self, answer, reference, rng):
        "several activations of a transformer restored at once"
        self.values(answer, reference, rng)

    def test_endpoints(self, answer, rng):
        "nothing restored is the corrupted run, everything restored the clean one"
        for model, tokens, others in cases(rng):
            last = [f"blocks.{len(model.blocks) - 1}.hook_resid_post"]
            expect_close(answer(model, tokens, others, []), model(others), **CLOSE)
            expect_close(answer(model, tokens, others, last), model(tokens), **CLOSE)

    def test_rows(self, answer, rng):
        "inputs with different numbers of rows are refused, whatever the names"
        self.shapes(answer, rng, lambda x: x[:1])

    def test_columns(self, answer, rng):
        "inputs with different numbers of columns are refused, whatever the names"
        self.shapes(answer, rng, lambda x: x[:, 1:])

    def test_turned_round(self, answer, rng):
        "inputs of as many entries and another shape are refused, whatever the names"
        self.shapes(answer, rng, lambda x: x.reshape(x.shape[::-1]))

    def test_width(self, answer):
        "inputs of another width are refused where the part that is patched would not notice"
        self.other_width(answer)

    def test_unknown(self, answer, rng):
        "unknown and silent hook points are refused"
        self.unknown(answer, rng)

    def test_clean(self, answer, rng):
        "the model is as it was"
        self.clean(answer, rng)


class TestNoise(BothDirections):
    exercise = "noise"

    def test_tables(self, answer, reference):
        "the truth tables of AND and OR, whichever parts are corrupted"
        self.tables(answer, reference)

    def test_values(self, answer, reference, rng):
        "several activations of a transformer corrupted at once"
        self.values(answer, reference, rng)

    def test_endpoints(self, answer, rng):
        "nothing corrupted is the clean run, everything corrupted the corrupted one"
        for model, tokens, others in cases(rng):
            last = [f"blocks.{len(model.blocks) - 1}.hook_resid_post"]
            expect_close(answer(model, tokens, others, []), model(tokens), **CLOSE)
            expect_close(answer(model, tokens, others, last), model(others), **CLOSE)

    def test_rows(self, answer, rng):
        "inputs with different numbers of rows are refused, whatever the names"
        self.shapes(answer, rng, lambda x: x[:1])

    def test_columns(self, answer, rng):
        "inputs with different numbers of columns are refused, whatever the names"
        self.shapes(answer, rng, lambda x: x[:, 1:])

    def test_turned_round(self, answer, rng):
        "inputs of as many entries and another shape are refused, whatever the names"
        self.shapes(answer, rng, lambda x: x.reshape(x.shape[::-1]))

    def test_width(self, answer):
        "inputs of another width are refused where the part that is patched would not notice"
        self.other_width(answer)

    def test_unknown(self, answer, rng):
        "unknown and silent hook points are refused"
        self.unknown(answer, rng)

    def test_clean(self, answer, rng):
        "the model is as it was"
        self.clean(answer, rng)


PARTS = ("blocks.0.hook_attn_out", "blocks.1.hook_mlp_out")


class Ablations:
    """What holds for every ablation. ``ablate`` calls the answer, with other prompts and a generator where it asks."""

    n_others = 0

    def ablate(self, answer, model, tokens, name, others, **settings):
        return answer(model, tokens, name, others, **settings)

    def unknown(self, answer, rng):
        for model, tokens, others in cases(rng, n_others=self.n_others):
            for name in ("blocks.9.hook_mlp_out", "not_run"):
                with untouched(model, " that ended with an exception"):
                    expect_raises(ValueError, self.ablate, answer, model, tokens, name, others)

    def no_such_head(self, answer, rng, name, *heads):
        for model, tokens, others in cases(rng, n_others=self.n_others):
            for head in heads:
                with untouched(model, " that ended with an exception"):
                    expect_raises(ValueError, self.ablate, answer, model, tokens, name, others, head=head)

    def bypass(self, answer, rng):
        model = common.Bypass(rng)
        tokens, others = torch.randint(7, (3, 5), generator=rng), torch.randint(7, (1, 5), generator=rng)
        for name, head in (("hook", None), ("hook_heads", None), ("hook_heads", 1)):
            self.ablate(answer, model, tokens, name, others, head=head)
        model.expect_as_it_was()

    def lengths(self, answer, rng):
        for model, tokens, others in cases(rng, n_others=self.n_others):
            for wrong in (others[:, 1:], others[:, :1], torch.cat([others, others[:, :1]], 1)):
                for name, head in ((PARTS[0], None), (Z, 1)):
                    with untouched(model, " that ended with an exception"):
                        expect_raises(ValueError, self.ablate, answer, model, tokens, name, wrong, head=head)

    def clean(self, answer, rng):
        for model, tokens, others in cases(rng, n_others=self.n_others):
            for name, head in ((PARTS[0], None), (Z, 1)):
                with untouched(model):
                    self.ablate(answer, model, tokens, name, others, head=head)


class Masked(torch.nn.Module):
    """Attention whose scores for later positions are minus infinity, and a hook point."""

    def __init__(self, rng):
        super().__init__()
        self.W_E, self.hook_scores = torch.nn.Parameter(torch.randn(7, 4, generator=rng)), torch.nn.Identity()

    def forward(self, tokens):
        x = self.W_E[tokens]
        later = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        return self.hook_scores((x @ x.mT).masked_fill(later, -torch.inf)).softmax(-1) @ x


class TestZeroAblate(Ablations):
    exercise = "zero_ablate"

    def ablate(self, answer, model, tokens, name, others, **settings):
        return answer(model, tokens, name, **settings)

    def test_clean(self, answer, rng):
        "the model is as it was"
        self.clean(answer, rng)

    def test_values(self, answer, reference, rng):
        "one part's activation is zero at all positions"
        for model, tokens, _ in cases(rng):
            for name in PARTS:
                expect_close(answer(model, tokens, name), reference(model, tokens, name), **CLOSE)

    def test_heads(self, answer, reference, rng):
        "one head alone"
        for model, tokens, _ in cases(rng):
            heads = range(model.blocks[0].attn.W_O.shape[0])
            found, wanted = ([run(model, tokens, Z, head=head) for head in heads] for run in (answer, reference))
            expect_close(
                found,
                wanted,
                note="We asked for each head in turn, to be silenced; entry i is the run for head i",
                **CLOSE,
            )

    def test_masked(self, answer, reference, rng):
        "scores that are masked with minus infinity are zero like all others"
        model, tokens = Masked(rng), torch.randint(7, (3, 5), generator=rng)
        expect_close(answer(model, tokens, "hook_scores"), reference(model, tokens, "hook_scores"), **CLOSE)

    def test_linear(self, answer, rng):
        "in a linear model of one layer, the parts that are taken away one by one add up"
        model = SmallTransformer(rng, n_layers=1, linear=True).double()
        tokens = torch.randint(11, (3, 6), generator=rng)
        lost = sum(model(tokens) - answer(model, tokens, "blocks.0.attn.hook_z", head=h) for h in range(3))
        whole = model(tokens) - answer(model, tokens, "blocks.0.hook_attn_out")
        expect_close(lost, whole, note="The heads' effects do not add up to the layer's", rtol=1e-8, atol=1e-9)

    def test_bypass(self, answer, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        self.bypass(answer, rng)

    def test_unknown(self, answer, rng):
        "a hook point that is not there, or never runs, is refused"
        self.unknown(answer, rng)

    def test_head_outside(self, answer, rng):
        "a head that is not there is refused, a negative one too"
        self.no_such_head(answer, rng, Z, -1, 9)

    def test_no_heads(self, answer, rng):
        "a head of an activation without heads is refused, head 0 too"
        self.no_such_head(answer, rng, PARTS[0], 0, 1)


class TestMeanAblate(Ablations):
    exercise = "mean_ablate"
    n_others = 6

    def test_clean(self, answer, rng):
        "the model is as it was"
        self.clean(answer, rng)

    def test_values(self, answer, reference, rng):
        "one part's activation is its mean over the other prompts, position by position"
        for model, tokens, others in cases(rng, n_others=6):
            for name in PARTS:
                expect_close(answer(model, tokens, name, others), reference(model, tokens, name, others), **CLOSE)

    def test_heads(self, answer, reference, rng):
        "one head alone"
        for model, tokens, others in cases(rng, n_others=2):
            heads = range(model.blocks[0].attn.W_O.shape[0])
            found = [answer(model, tokens, Z, others, head=head) for head in heads]
            wanted = [reference(model, tokens, Z, others, head=head) for head in heads]
            # All heads in one comparison: who replaces them all whatever head is asked for differs in each entry.
            expect_close(
                found,
                wanted,
                note="We asked for each head in turn, to be replaced; entry i is the run for head i",
                **CLOSE,
            )

    def test_a_constant(self, answer, rng):
        "over copies of the prompt itself, the mean is the activation, and nothing changes"
        for model, tokens, _ in cases(rng):
            one = tokens[:1]
            expect_close(answer(model, one, PARTS[1], one.repeat(4, 1)), model(one), **CLOSE)

    def test_lengths(self, answer, rng):
        "prompts of another length are refused"
        self.lengths(answer, rng)

    def test_bypass(self, answer, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        self.bypass(answer, rng)

    def test_unknown(self, answer, rng):
        "a hook point that is not there, or never runs, is refused"
        self.unknown(answer, rng)

    def test_head_outside(self, answer, rng):
        "a head that is not there is refused, a negative one too"
        self.no_such_head(answer, rng, Z, -1, 9)

    def test_no_heads(self, answer, rng):
        "a head of an activation without heads is refused, head 0 too"
        self.no_such_head(answer, rng, PARTS[0], 0, 1)


def sources(model, tokens, name, others, result, head=None):
    """For each prompt, the first of ``others`` whose activation gives what came out; -1 if none does."""
    activations = kept(model, others, [name])[name]
    own = kept(model, tokens, [name])[name]
    found = torch.full((len(tokens),), -1)
    for i, activation in reversed(list(enumerate(activations))):
        patched = activation.expand_as(own).clone() if head is None else own.clone()
        if head is not None:
            patched[:, :, head] = activation[:, head]
        logits = replaced(model, tokens, name, patched)
        found[torch.isclose(logits, result, **CLOSE).flatten(1).all(1)] = i
    return found


def distinct_prompts(rng, n, pos):
    """Prompts no two of which begin with the same token, so that their activations can be told apart."""
    prompts = torch.randint(11, (n, pos), generator=rng)
    prompts[:, 0] = torch.randperm(11, generator=rng)[:n]
    return prompts


class TestResampleAblate(Ablations):
    exercise = "resample_ablate"
    n_others = 6

    def ablate(self, answer, model, tokens, name, others, **settings):
        return answer(model, tokens, name, others, torch.Generator().manual_seed(0), **settings)

    def test_clean(self, answer, rng):
        "the model is as it was"
        self.clean(answer, rng)

    def check(self, answer, rng, name, heads=(None,)):
        for model, tokens, others in cases(rng, n_others=5):
            results = [answer(model, tokens, name, others, torch.Generator().manual_seed(3), head=h) for h in heads]
            for result in results:
                expect_shape(result, (*tokens.shape, model.W_U.shape[1]))
            found = [sources(model, tokens, name, others, x, h) for x, h in zip(results, heads, strict=True)]
            stray = [f"{i} (head {h})" if h is not None else i for h, x in zip(heads, found, strict=True)
                     for i in (x < 0).nonzero().flatten().tolist()]  # fmt: skip
            expect(
                not stray,
                f"The output of prompt {stray[:1]} is not what any one of the other prompts' activations gives.",
                actual=torch.stack(results),
            )

    def test_whole(self, answer, rng):
        "each prompt runs with one other prompt's activation, at all positions and in all heads"
        self.check(answer, rng, PARTS[0])
        self.check(answer, rng, Z)

    def test_heads(self, answer, rng):
        "one head alone"
        self.check(answer, rng, Z, heads=(0, 1))

    def test_drawn(self, answer, rng):
        "all other prompts are drawn equally often, for each prompt anew"
        model = SmallTransformer(rng, n_layers=1)
        tokens, others = torch.randint(11, (600, 3), generator=rng), distinct_prompts(rng, 3, 3)
        result = answer(model, tokens, PARTS[0], others, torch.Generator().manual_seed(int(tokens[:20].sum())))
        expect_shape(result, (600, 3, 11))
        drawn = sources(model, tokens, PARTS[0], others, result)
        stray = int((drawn < 0).sum())
        expect(
            stray == 0, f"{stray} of 600 outputs are not what any one other prompt's activation gives.", actual=result
        )
        # 200 expected of each. Their chi-square, with two degrees of freedom, is above 21 once in 36,000 runs. 200
        # neighbours with the same, standard deviation 11.5: such bounds are passed once in more than 100,000 runs.
        counts, repeats = drawn.bincount(minlength=3), int((drawn[1:] == drawn[:-1]).sum())
        expect(
            (counts - 200).square().sum() / 200 < 21,
            f"Of 600 prompts, {counts.tolist()} have the activation of the first, second and third other one.",
            actual=counts,
        )
        expect(
            145 < repeats < 255,
            f"Of 599 neighbouring prompts {repeats} have the same other prompt; independent draws give about 200.",
            actual=repeats,
        )

    def test_one_by_one(self, answer, rng):
        "one prompt, run again and again with the same generator, meets every other prompt's activation"
        model = SmallTransformer(rng, n_layers=1)
        one, others = torch.randint(11, (1, 3), generator=rng), distinct_prompts(rng, 2, 3)
        found, n = [], 20
        for seed in (0, 1):  # whose first draws differ
            generator = torch.Generator().manual_seed(seed)
            results = [answer(model, one, PARTS[0], others, generator) for _ in range(n)]
            for result in results:
                expect_shape(result, (1, 3, 11))
            found.append(sources(model, one.repeat(n, 1), PARTS[0], others, torch.cat(results)))
        # One of two is never drawn in twenty fair draws, with either seed, once in 260,000 runs.
        met = min(len(set(drawn.tolist()) - {-1}) for drawn in found)
        expect(
            met == 2,
            f"One prompt, run {n} times with the same generator, had {met} of two other prompts' activations: every "
            "call should draw anew, from all of them.",
            actual=torch.stack(found),
        )

    def test_seed(self, answer, rng):
        "the generator decides: the same seed gives the same result, and another seed another"
        model = SmallTransformer(rng)
        tokens, others = torch.randint(11, (30, 4), generator=rng), distinct_prompts(rng, 10, 4)
        results = [answer(model, tokens, PARTS[0], others, torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
        for result in results:
            expect_shape(result, (30, 4, 11))
        again, other = (torch.allclose(results[0], result, **CLOSE) for result in results[1:])
        expect(again, "The same seed gave two results: something draws from elsewhere.", actual=again)
        expect(not other, "Two seeds gave one result: the generator is not used.", actual=other)

    def test_lengths(self, answer, rng):
        "prompts of another length are refused"
        self.lengths(answer, rng)

    def test_bypass(self, answer, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        self.bypass(answer, rng)

    def test_unknown(self, answer, rng):
        "a hook point that is not there, or never runs, is refused"
        self.unknown(answer, rng)

    def test_head_outside(self, answer, rng):
        "a head that is not there is refused, a negative one too"
        self.no_such_head(answer, rng, Z, -1, 9)

    def test_no_heads(self, answer, rng):
        "a head of an activation without heads is refused, head 0 too"
        self.no_such_head(answer, rng, PARTS[0], 0, 1)


SITES = (*NAMES, Z)
# Products of slopes of size ten and differences of size one, summed: a thousand roundings of float32.
SLOPES = {"rtol": 1e-3, "atol": 1e-3}


def last_logit(logits):
    return logits[:, -1, 2] - logits[:, -2, 1]


class TestAttributionPatching:
    exercise = "attribution_patching"

    def test_values(self, answer, reference, rng):
        "difference times slope, summed over the last dimension, for every site"
        for model, tokens, others in cases(rng):
            metric = metric_of(tokens)
            result = answer(model, tokens, others, SITES, metric)
            expect(isinstance(result, dict), "Return a dict with a tensor for each hook point.", actual=result)
            expect_close(
                {name: value.detach() for name, value in result.items()},
                reference(model, tokens, others, SITES, metric), **SLOPES,
            )  # fmt: skip
            common.expect_all_prompts(metric, tokens)

    def test_exact(self, answer, rng):
        "in a linear model, with a linear metric, the estimate is the truth"
        for model, tokens, others in cases(rng, dtype=torch.float64, linear=True):
            estimate = answer(model, tokens, others, NAMES, last_logit)
            change = patch_sweep(model, others, kept(model, tokens, NAMES), last_logit) - last_logit(model(others))
            for name, exact in zip(NAMES, change.detach(), strict=True):
                expect_close(estimate[name], exact.T, rtol=1e-7, atol=1e-8, dtype=True)

    def test_passes(self, answer, rng):
        "four sites cost no more forward passes than one"
        for model, tokens, others in cases(rng):
            passes = []
            for names in (SITES[:1], SITES):
                with counted(model) as rows:
                    answer(model, tokens, others, names, metric_of(tokens))
                passes.append(len(rows))
            expect(
                passes[1] <= passes[0],
                f"One site takes {passes[0]} forward passes, four take {passes[1]}: an exact sweep costs no more.",
                actual=passes,
            )

    def without(self, answer, reference, rng, switch=torch.enable_grad, frozen=False):
        for model, tokens, others in cases(rng):
            expected = reference(model, tokens, others, SITES, metric_of(tokens))
            model.requires_grad_(not frozen)
            with untouched(model), switch():
                result = answer(model, tokens, others, SITES, metric_of(tokens))
            expect_close(result, expected, **SLOPES)

    def test_frozen(self, answer, reference, rng):
        "frozen parameters: the same"
        self.without(answer, reference, rng, frozen=True)

    def test_no_grad(self, answer, reference, rng):
        "where the caller has switched gradients off: the same"
        self.without(answer, reference, rng, torch.no_grad)

    def test_inference_mode(self, answer, reference, rng):
        "where the caller is in inference mode: the same"
        self.without(answer, reference, rng, torch.inference_mode)

    def test_same(self, answer, rng):
        "two runs that agree have nothing to attribute"
        for model, tokens, _ in cases(rng):
            one = tokens[:1]
            found = answer(model, one, one.clone(), SITES, metric_of(one))
            shapes = {name: value.shape[:-1] for name, value in kept(model, one, SITES).items()}
            expect_close(found, {name: torch.zeros(shape) for name, shape in shapes.items()}, **SLOPES)

    def test_refused(self, answer, rng):
        "prompts of different shapes are refused"
        for model, tokens, others in cases(rng):
            for wrong in (others[:1], others[:, 1:]):
                expect_refused(answer, model, tokens, wrong, SITES, metric_of(tokens))

    def test_clean(self, answer, rng):
        "the model is as it was: no hooks, no gradients, and those it had are still there"
        for model, tokens, others in cases(rng):
            with untouched(model):
                answer(model, tokens, others, SITES, metric_of(tokens))
