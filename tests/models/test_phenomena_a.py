"""What the course model can do, and how: the measuring code on cases with a known answer, then the shipped model."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest

from utils.data.corpus import PHRASINGS, encode, vocabulary, words
from utils.data.prompts import fact_prompt, giving_roles, ioi_prompts, quote_prompts, repeated_random_tokens, token_id
from utils.data.world import COUNTRY_OF_CITY, NAMES, VERBS, landmarks
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.models.network import Network
from utils.models.phenomena import edit, facts, giver, induction, ioi, measuring, tasks

N_VOCAB = len(vocabulary())


def blank(d_model, n_layers, n_heads, d_head, n_ctx=48, d_mlp=4):
    """The weights of a model that does nothing: all zero, layer norms without effect of their own."""
    cfg = TransformerConfig(d_model, n_layers, n_heads, d_head, d_mlp, n_ctx, N_VOCAB)
    state = Network(cfg, torch.Generator().manual_seed(0)).standard_state()
    ones = {name for name in state if name.endswith((".ln1.w", ".ln2.w", "ln_final.w"))}
    return cfg, {name: torch.full_like(value, float(name in ones)) for name, value in state.items()}


def random_model(seed=0, n_layers=2, n_heads=3):
    """Every weight is random, biases and layer norms too."""
    cfg, state = blank(d_model=24, n_layers=n_layers, n_heads=n_heads, d_head=8, d_mlp=40)
    generator = torch.Generator().manual_seed(seed)
    return hooked_transformer(cfg, {k: v + 0.4 * torch.randn(v.shape, generator=generator) for k, v in state.items()})


def positions_only(n_ctx, n_layers, n_heads, d_model):
    """A blank model whose residual stream says, in its first ``n_ctx`` dimensions, which position this is."""
    cfg, state = blank(d_model, n_layers, n_heads, d_head=n_ctx, n_ctx=n_ctx)
    state["pos_embed.W_pos"][:, :n_ctx] = torch.eye(n_ctx)
    return cfg, state


def look_back(state, layer, head, distance, n_ctx, strength=60.0):
    """Make a head look ``distance`` positions back."""
    state[f"blocks.{layer}.attn.W_Q"][head, :n_ctx, :n_ctx] = strength * torch.eye(n_ctx)
    state[f"blocks.{layer}.attn.W_K"][head, :n_ctx, :n_ctx] = torch.eye(n_ctx).roll(distance, 1)


class TestMeasuring:
    @pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (391, 400)])
    def test_shares_have_wilsons_interval(self, right, n):
        measured = measuring.share(torch.arange(n) < right)
        expected = binomtest(right, n).proportion_ci(method="wilson")
        assert measured["n"] == n and measured["value"] == pytest.approx(right / n)
        assert measured["low"] == pytest.approx(expected.low, abs=1e-5)
        assert measured["high"] == pytest.approx(expected.high, abs=1e-5)

    def test_the_bootstrap_of_a_mean_is_that_of_the_normal_theory(self):
        values = torch.randn(400, generator=torch.Generator().manual_seed(1))
        measured = measuring.mean(values)
        half = 1.96 * values.std().item() / 20
        assert measured["value"] == pytest.approx(values.mean().item())
        assert measured["high"] - measured["value"] == pytest.approx(half, rel=0.15)
        assert measured["value"] - measured["low"] == pytest.approx(half, rel=0.15)

    def test_a_ratio_is_of_means_and_resamples_both_sides_together(self):
        below = 1 + torch.rand(50, generator=torch.Generator().manual_seed(2))
        measured = measuring.ratio(3 * below, below)
        for name in ("value", "low", "high"):
            assert measured[name] == pytest.approx(3)

    def test_groups_of_values_that_agree_count_as_one_value_each(self):
        """Four copies of everything are no more than everything once."""
        generator = torch.Generator().manual_seed(3)
        above, below = torch.randn(60, generator=generator), 1 + torch.rand(60, generator=generator)
        groups = torch.arange(60).repeat(4)
        once, copied = measuring.ratio(above, below, 5), measuring.ratio(above.repeat(4), below.repeat(4), 5, groups)
        assert copied == pytest.approx(once) and copied["n"] == 60
        right = torch.arange(60) < 51
        once, copied = measuring.share(right), measuring.share(right.repeat(4), groups)
        assert copied == pytest.approx(once, abs=2e-3) and copied["n"] == 60
        narrow = measuring.share(right.repeat(4))
        assert copied["high"] - copied["low"] > 1.8 * (narrow["high"] - narrow["low"])

    def test_the_interval_over_groups_is_that_of_their_means_where_groups_have_one_size(self):
        values = torch.randn(80, 5, generator=torch.Generator().manual_seed(4)) + torch.linspace(-1, 1, 80)[:, None]
        labels = [f"landmark {i}" for i in range(80) for _ in range(5)]
        measured = measuring.mean(values.flatten(), groups=labels)
        half = 1.96 * values.mean(1).std().item() / 80**0.5
        assert measured["value"] == pytest.approx(values.mean().item()) and measured["n"] == 80
        assert measured["high"] - measured["value"] == pytest.approx(half, rel=0.15)
        assert measured["value"] - measured["low"] == pytest.approx(half, rel=0.15)

    def test_the_interval_over_groups_covers_the_truth_as_often_as_it_says_and_the_one_over_values_does_not(self):
        """Probabilities that differ from group to group: 150 samples of 40 groups of eight."""
        generator = torch.Generator().manual_seed(5)
        covered = {"groups": 0, "values": 0}
        for _ in range(150):
            chance = torch.rand(40, 1, generator=generator)
            right = (torch.rand(40, 8, generator=generator) < chance).flatten()
            for name, groups in (("groups", torch.arange(40).repeat_interleave(8)), ("values", None)):
                found = measuring.share(right, groups)
                covered[name] += found["low"] <= 0.5 <= found["high"]
        assert covered["groups"] >= 0.89 * 150 > 0.85 * 150 > covered["values"]

    def test_groups_of_one_are_no_groups_and_the_value_is_never_changed(self):
        values = torch.rand(50, generator=torch.Generator().manual_seed(6))
        alone = [str(i) for i in range(50)]
        assert measuring.mean(values, 1, alone) == pytest.approx(measuring.mean(values, 1))
        assert measuring.share(values > 0.3, alone) == pytest.approx(measuring.share(values > 0.3))
        uneven = [0] * 30 + [1] * 15 + [2] * 5
        assert measuring.mean(values, groups=uneven)["value"] == pytest.approx(values.mean().item())
        assert measuring.share(values > 0.3, uneven)["value"] == measuring.share(values > 0.3)["value"]

    def test_when_all_are_right_the_interval_is_that_of_as_many_prompts_as_groups(self):
        right = torch.ones(40, dtype=torch.bool)
        measured = measuring.share(right, [i % 10 for i in range(40)])
        assert measured == measuring.share(right[:10])

    @pytest.mark.parametrize("groups", [[0, 1], [0] * 4, [0, 0, 1, 1, 2]])
    def test_groups_that_do_not_fit_are_refused(self, groups):
        for of in (measuring.mean, lambda values, groups: measuring.share(values > 0, groups=groups)):
            with pytest.raises(ValueError, match="4 values in at least two groups need as many labels"):
                of(torch.ones(4), groups=groups)

    def test_prompts_say_what_they_share(self):
        gifts = measuring.to_batch(ioi_prompts(200, 0))
        assert len(set(gifts.units)) < 80 and gifts.units[0].count(" ") == 1
        about = measuring.to_batch([fact_prompt(landmarks()[7], relation, 0) for relation in PHRASINGS])
        assert set(about.units) == {landmarks()[7].name}
        assert len(set(measuring.to_batch(quote_prompts(12, 0)).units)) == 12

    def test_the_end_is_read_at_each_prompts_own_end(self):
        prompts = [*ioi_prompts(6, 0), fact_prompt(landmarks()[0], "city", 0)]
        together = measuring.end_logits(random_model(), measuring.to_batch(prompts))
        alone = torch.cat([measuring.end_logits(random_model(), measuring.to_batch([prompt])) for prompt in prompts])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)

    def test_an_untrained_model_has_the_sizes_and_nothing_else(self):
        model, before = random_model(), torch.get_rng_state()
        null, other = measuring.untrained(model, 1), measuring.untrained(model, 2)
        assert torch.equal(torch.get_rng_state(), before)
        assert {k: v.shape for k, v in null.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
        assert not torch.equal(null.W_E, other.W_E)
        assert null.cfg.eps == model.cfg.eps


class TestTasks:
    def test_a_model_that_always_says_one_word_is_right_where_it_is_the_answer(self):
        cfg, state = blank(8, 1, 1, 8)
        state["unembed.b_U"][token_id("Paris")] = 1.0
        model = hooked_transformer(cfg, state)
        measured = tasks.facts(model, seed=0)
        in_paris = sum(landmark.city == "Paris" for landmark in landmarks())
        assert measured["city"]["value"] == pytest.approx(in_paris / 120)
        assert measured["all"]["value"] == pytest.approx(in_paris / 480)
        assert measured["builder"]["value"] == 0

    def test_pairs_compare_answer_and_foil(self):
        cfg, state = blank(8, 1, 1, 8)
        state["unembed.b_U"][token_id("she")] = 1.5
        measured = tasks.pairs(hooked_transformer(cfg, state), tasks.gender_prompts())
        assert measured["answer above foil"]["value"] == 0.5
        assert measured["logit difference"]["value"] == pytest.approx(0, abs=1e-6)

    def test_the_tense_difference_sums_probabilities_of_forms(self):
        logits = torch.randn(5, N_VOCAB, generator=torch.Generator().manual_seed(0))
        p = logits.softmax(1)
        now, past = (p[:, [token_id(forms[i]) for forms in VERBS]].sum(1) for i in (1, 2))
        torch.testing.assert_close(tasks.tense_difference(logits), now.log() - past.log())

    def test_a_model_that_always_speaks_of_the_present_is_right_inside_quotes(self):
        cfg, state = blank(8, 1, 1, 8)
        state["unembed.b_U"][[token_id(now) for _, now, _ in VERBS]] = 2.0
        measured = tasks.quotes(hooked_transformer(cfg, state), quote_prompts(40, 0))
        assert measured["accuracy"]["value"] == 0.5
        assert measured["tense difference outside"]["value"] == pytest.approx(2.0, abs=1e-5)


class TestInduction:
    PERIOD = 10

    def test_planted_heads_score_one_and_others_do_not(self):
        n_ctx = 2 * self.PERIOD + 1
        cfg, state = positions_only(n_ctx, n_layers=1, n_heads=3, d_model=n_ctx + 3)
        look_back(state, 0, 0, 1, n_ctx)
        look_back(state, 0, 1, self.PERIOD - 1, n_ctx)
        model = hooked_transformer(cfg, state)
        tokens = repeated_random_tokens(4, self.PERIOD, 0)
        repeats, previous = (
            induction.induction_scores(model, tokens, self.PERIOD)[0],
            induction.previous_token_scores(model, tokens)[0],
        )
        assert repeats[1] > 0.99 and previous[0] > 0.99
        assert repeats[0] < 0.01
        assert previous[1] < 0.1  # it has no goal in its first places, and looks everywhere
        uniform = torch.tensor([1 / (q + 1) for q in range(2, n_ctx)]).mean()
        torch.testing.assert_close(previous[2], uniform, atol=1e-5, rtol=0)

    def test_a_copying_model_has_no_loss_the_second_time(self):
        n_ctx = 2 * self.PERIOD + 1
        width = n_ctx + N_VOCAB
        cfg, state = blank(width, 1, 1, d_head=width, n_ctx=n_ctx)
        state["pos_embed.W_pos"][:, :n_ctx] = torch.eye(n_ctx)
        state["embed.W_E"][:, n_ctx:] = torch.eye(N_VOCAB)
        look_back(state, 0, 0, self.PERIOD - 1, n_ctx)
        state["blocks.0.attn.W_V"][0] = torch.eye(width)
        state["blocks.0.attn.W_O"][0] = 5 * torch.eye(width)
        state["unembed.W_U"][n_ctx:] = torch.eye(N_VOCAB)
        model = hooked_transformer(cfg, state)
        measured = induction.repetition(model, repeated_random_tokens(8, self.PERIOD, 0), self.PERIOD, seed=0)
        assert measured["loss, second time"]["value"] < 0.01
        assert measured["accuracy, second time"]["value"] == 1
        assert measured["loss, first time"]["value"] > 2

    def test_a_model_that_knows_nothing_loses_the_vocabularys_logarithm(self):
        cfg, state = blank(8, 1, 1, 8)
        measured = induction.repetition(hooked_transformer(cfg, state), repeated_random_tokens(3, 9, 0), 9, seed=0)
        assert measured["loss, second time"]["value"] == pytest.approx(math.log(N_VOCAB), rel=1e-5)


class TestIOI:
    def test_direct_effects_add_up_to_the_logit_difference(self):
        model, batch = random_model(), measuring.to_batch(ioi_prompts(10, 0))
        logits = measuring.end_logits(model, batch)
        expected = logits[batch.rows(), batch.answers] - logits[batch.rows(), batch.foils]
        torch.testing.assert_close(ioi.direct_effects(model, batch).total(), expected, atol=1e-4, rtol=1e-4)

    def test_each_heads_direct_effect_is_that_of_transformer_lens(self):
        model, batch = random_model(), measuring.to_batch(ioi_prompts(30, 0))
        model.ln_final.w.data.fill_(1.0)
        model.ln_final.b.data.fill_(0.0)  # its own function takes layer norms to be folded
        i = 7
        end = int(batch.at["END"][i])
        model.set_use_attn_result(True)
        _, cache = model.run_with_cache(batch.tokens[i : i + 1, : end + 1])
        stack = cache.stack_head_results(layer=-1, pos_slice=-1)
        expected = cache.logit_attrs(
            stack, tokens=batch.answers[i : i + 1], incorrect_tokens=batch.foils[i : i + 1], pos_slice=-1
        )
        measured = ioi.direct_effects(model, batch).heads[i]
        torch.testing.assert_close(measured.flatten(), expected.flatten(), atol=1e-4, rtol=1e-4)

    def test_copying_heads_copy(self):
        cfg, state = blank(N_VOCAB, 2, 3, d_head=N_VOCAB)
        state["embed.W_E"], state["unembed.W_U"] = torch.eye(N_VOCAB), torch.eye(N_VOCAB)
        state["blocks.1.attn.W_V"][:] = torch.eye(N_VOCAB)
        state["blocks.1.attn.W_O"][:] = torch.stack(
            [torch.eye(N_VOCAB), -torch.eye(N_VOCAB), torch.eye(N_VOCAB).roll(1, 1)]
        )
        model = hooked_transformer(cfg, state)
        assert ioi.copy_scores(model)[1].tolist()[:2] == [1.0, 0.0]
        assert ioi.copy_scores(model, sign=-1)[1].tolist()[:2] == [0.0, 1.0]
        assert ioi.copy_scores(model, top=1)[1, 2] == 0

    def test_other_people_are_three_and_new(self):
        batch = measuring.to_batch(ioi_prompts(200, 0))
        tokens = ioi.other_people(batch, torch.Generator().manual_seed(0))
        names = {token_id(name) for name in NAMES}
        places = torch.stack([batch.at[name] for name in ("IO", "S1", "S2")], dim=1)
        for row, (old, new) in enumerate(zip(batch.tokens.tolist(), tokens.tolist(), strict=True)):
            people = {new[i] for i in places[row]}
            assert len(people) == 3 and people <= names and not people & set(old)
            assert [o for i, o in enumerate(old) if i not in places[row]] == [
                n for i, n in enumerate(new) if i not in places[row]
            ]

    def test_putting_back_a_heads_own_output_changes_nothing(self):
        model, batch = random_model(), measuring.to_batch(ioi_prompts(8, 0))
        _, cache = model.run_with_cache(batch.tokens)
        own = torch.stack([cache[f"blocks.{i}.attn.hook_z"][batch.rows(), batch.at["END"]] for i in (0, 1)], dim=1)
        clean = model(batch.tokens)
        every = [(layer, head) for layer in range(2) for head in range(3)]
        torch.testing.assert_close(model.run_with_hooks(batch.tokens, fwd_hooks=ioi.without(every, batch, own)), clean)
        zeroed = model.run_with_hooks(batch.tokens, fwd_hooks=ioi.without(every[:1], batch, torch.zeros_like(own)))
        changed = (zeroed != clean).any(-1)
        assert changed[batch.rows(), batch.at["END"]].all()
        before_end = torch.arange(clean.shape[1]) < batch.at["END"][:, None]
        assert not changed[before_end].any()

    def test_a_head_that_prefers_the_receiver_looks_copies_and_raises(self):
        everywhere = torch.full((1, 4), 0.9)
        attention = {
            ("END", "IO"): torch.tensor([[0.8, 0.8, 0.8, 0.1]]),
            ("END", "S1"): torch.tensor([[0.1, 0.1, 0.9, 0.1]]),
            ("END", "S2"): torch.zeros(1, 4),
        }
        effects = ioi.DirectEffects(
            torch.tensor([[[1.0, 0.01, 1.0, 1.0]]]), torch.zeros(1, 1), torch.zeros(1), torch.ones(1)
        )
        assert ioi.preferring_heads(effects, attention, everywhere) == [(0, 0)]
        assert ioi.preferring_heads(effects, attention, everywhere - 0.5) == []
        assert ioi.copying_heads(attention, everywhere) == [(0, 0), (0, 1), (0, 2)]
        assert ioi.copying_heads(attention, everywhere - 0.5) == []

    def one_template(self, n=400, bystander=False):
        prompts = ioi_prompts(n, 0, bystander=bystander)
        return [prompt for prompt in prompts if prompt.kind == ("ABBA", "0", "0")]

    def planted_circuit(self):
        """Head 0.0 looks from END to S2 and says so; head 1.0 looks at IO if it hears that, and at S1 if not."""
        prompts = self.one_template()
        batch = measuring.to_batch(prompts)._replace(units=tuple(range(len(prompts))))
        n_ctx, heard = 16, 17
        cfg, state = positions_only(n_ctx, n_layers=2, n_heads=2, d_model=18)
        places = {name: int(positions[0]) for name, positions in batch.at.items()}
        state["blocks.0.attn.W_Q"][0, places["END"], 0] = 100.0
        state["blocks.0.attn.W_K"][0, places["S2"], 0] = 1.0
        state["blocks.0.attn.b_V"][0, 0] = 1.0
        state["blocks.0.attn.W_O"][0, 0, heard] = 5.0
        state["blocks.1.attn.b_Q"][0, 1] = 30.0
        state["blocks.1.attn.W_Q"][0, heard, 0] = 30.0
        state["blocks.1.attn.W_K"][0, places["S1"], 1] = 1.0
        state["blocks.1.attn.W_K"][0, places["IO"], 0] = 1.0
        return hooked_transformer(cfg, state), batch

    def test_without_a_planted_giver_head_the_planted_preference_turns_round(self):
        model, batch = self.planted_circuit()
        assert len(batch.tokens) > 1
        attention = ioi.attention_at(model, batch)
        assert attention["END", "S2"][0, 0] > 0.9 and attention["END", "IO"][1, 0] > 0.9
        means = torch.zeros(len(batch.tokens), 2, 2, 16)
        measured = ioi.knock_out(model, batch, means, [(0, 0)], [(1, 0)], seed=0)
        assert measured["before"]["attention to IO"] > 0.9
        assert measured["after"]["attention to S1"] > 0.9
        assert measured["after, random other heads"]["attention to IO"]["value"] > 0.9

    def two_readings(self):
        """Head 1.0 looks from END at the giver's place; head 1.1 looks for a name that stands for the second time.

        Head 0.0 looks from each token back at the same token (name for name, place by place), and finds either an
        earlier one in the opening, or only itself. What is no name looks at `<bos>`.
        """
        prompts = self.one_template(800, bystander=True)
        prompts = [prompt for prompt in prompts if prompt.at == prompts[0].at]
        at, n_ctx = prompts[0].at, 20
        width, again = n_ctx + N_VOCAB + 1, n_ctx + N_VOCAB
        cfg, state = blank(width, 2, 2, d_head=width, n_ctx=n_ctx)
        state["pos_embed.W_pos"][:, :n_ctx] = torch.eye(n_ctx)
        state["embed.W_E"][:, n_ctx:again] = 3 * torch.eye(N_VOCAB)
        names = [n_ctx + token_id(name) for name in NAMES]
        state["blocks.0.attn.W_Q"][0, names, names] = 100.0
        state["blocks.0.attn.W_K"][0, names, names] = 1.0
        others = [dim for dim in range(n_ctx, again) if dim not in names]
        state["blocks.0.attn.W_Q"][0, others, n_ctx] = 100.0  # to <bos>, whose id is 0
        state["blocks.0.attn.W_K"][0, n_ctx, n_ctx] = 1.0
        state["blocks.0.attn.W_V"][0, [at["IO"], at["S1"]], 0] = 1.0  # something of the opening was found
        state["blocks.0.attn.W_O"][0, 0, again] = 3.0
        for head in (0, 1):
            state["blocks.1.attn.W_Q"][head, at["END"], 0] = 100.0
        state["blocks.1.attn.W_K"][0, at["S2"], 0] = 3.0
        state["blocks.1.attn.W_K"][1, again, 0] = 3.0
        state["blocks.1.attn.W_K"][1, [at["IO"], at["S1"]], 0] = -50.0  # those in the opening found only themselves
        return hooked_transformer(cfg, state), prompts

    def test_scenes_vary_repetition_and_giver_one_without_the_other(self):
        scenes = ioi.giving_scenes(100, 0)
        for prompts in zip(*scenes.values(), strict=True):
            found = {name: giving_roles(prompt.text) for name, prompt in zip(scenes, prompts, strict=True)}
            usual = found["giver twice"]
            receiver, giver = prompts[0].answer, usual.giver
            assert usual.repeated == (giver,) and giver == prompts[0].foil
            for name in ("nobody twice", "another twice"):
                assert found[name].giver == giver and found[name].giver_at == usual.giver_at
            assert found["nobody twice"].repeated == () and found["another twice"].repeated == (receiver,)
            assert found["another gives"].repeated == (giver,) and found["another gives"].giver == usual.last
            for roles, prompt in zip(found.values(), prompts, strict=True):
                assert roles.end == prompt.at["END"] and roles.giver_at == prompt.at["S2"] == roles.first_at

    def test_a_head_that_looks_for_the_repeated_name_is_no_giver_head(self):
        """On the usual prompts the two planted heads look alike; the scenes tell them apart."""
        model, prompts = self.two_readings()
        scenes = {name: [] for name in ioi.giving_scenes(1, 0)}
        for prompt in prompts:
            ids = [0, *encode(prompt.text)]
            io, s, owner = (ids[prompt.at[place]] for place in ("IO", "S2", "OWNER"))
            outsider = next(token_id(name) for name in NAMES if token_id(name) not in ids)
            parts = ({}, {"S1": outsider}, {"S1": outsider, "OWNER": io}, {"S2": owner, "OWNER": s})
            for scene, part in zip(scenes, parts, strict=True):
                scenes[scene].append(ioi.recast(prompt, part))
        usual = ioi.attention_at(model, measuring.to_batch(prompts))["END", "S2"]
        assert usual[1, 0] > 0.9 and usual[1, 1] > 0.9
        assert ioi.giver_heads(model, scenes) == [(1, 0)]
        looks = {name: giver.attention(model, of, [(1, 0), (1, 1)], 0) for name, of in units_apart(scenes).items()}
        for scene in scenes:
            assert looks[scene]["1.0"]["giver"]["value"] > 0.9
        for scene in ("another twice", "another gives"):
            assert looks[scene]["1.1"]["owner"]["value"] > 0.9

    def test_attention_to_people_is_the_patterns_last_row_summed_over_mentions(self):
        model, text = random_model(), "When Mary and Paul went to the park, Paul gave the baker's ball to"
        found = ioi.attention_to_people(model, text, 1, 2)
        tokens = ["<bos>", *words(text)]
        _, cache = model.run_with_cache(torch.tensor([[0, *encode(text)]]))
        row = cache["blocks.1.attn.hook_pattern"][0, 2, -1]
        assert list(found) == ["Mary", "Paul", "baker"]
        for person, value in found.items():
            assert value == pytest.approx(sum(row[i].item() for i, token in enumerate(tokens) if token == person))
        with pytest.raises(ValueError, match="xylophone"):
            ioi.attention_to_people(model, "Paul gave the xylophone to", 0, 0)

    def test_planted_self_repair_is_measured(self):
        """The head's bias writes u; the MLP, in its linear range, takes half of u away."""
        cfg, state = blank(8, 1, 1, 8)
        u = torch.tensor([1.0, -1.0, 0, 0, 0, 0, 0, 0])
        state["embed.W_E"][:] = 1000 * torch.tensor([0, 0, 0, 0, 0, 0, 1.0, -1.0])  # fixes the layer norms' scale
        state["blocks.0.attn.b_V"][0, 0] = 1.0
        state["blocks.0.attn.W_O"][0, 0] = u
        scale = 1000 / 2.0  # of a layer norm: the root mean square of the stream
        state["blocks.0.mlp.W_in"][:, 0] = u * scale
        state["blocks.0.mlp.b_in"][0] = 20.0
        state["blocks.0.mlp.W_out"][0] = -0.25 * u  # u has two entries of size one
        state["unembed.W_U"][:, token_id("she")] = u
        model = hooked_transformer(cfg, state)
        batch = measuring.to_batch(ioi_prompts(4, 0))
        batch = batch._replace(answers=torch.full((4,), token_id("she")), foils=torch.full((4,), token_id("he")))
        effects = ioi.direct_effects(model, batch)
        measured = ioi.self_repair(model, batch, torch.zeros(4, 1, 1, 8), [(0, 0)], effects, seed=0)["top 1"]
        assert measured["lost"]["value"] == pytest.approx(2 / scale, rel=1e-3)
        assert measured["made up by MLPs"]["value"] == pytest.approx(0.5, abs=0.01)
        assert measured["made up by heads"]["value"] == pytest.approx(0, abs=1e-5)
        assert measured["fall"]["value"] == pytest.approx(1 / scale, rel=0.02)

    def test_lost_repaired_and_fallen_add_up(self):
        model, batch = random_model(n_layers=3), measuring.to_batch(ioi_prompts(12, 0))
        means = ioi.mean_outputs(model, batch, seed=0)
        measured = ioi.self_repair(model, batch, means, [(0, 1), (1, 2)], ioi.direct_effects(model, batch), seed=0)
        for row in measured.values():
            lost = row["lost"]["value"]
            assert lost * (1 - row["made up"]["value"]) == pytest.approx(row["fall"]["value"], abs=1e-3)


def units_apart(scenes):
    """The same prompts, each for a unit of its own: planted models need prompts of one template."""
    return {name: [replace(prompt, unit=None) for prompt in prompts] for name, prompts in scenes.items()}


class TestRoutes:
    def test_closing_all_routes_is_closing_the_whole(self):
        """In a model with one layer behind the head: later heads and MLPs as without it, and its direct effect gone."""
        model, batch = random_model(n_layers=2), measuring.to_batch(ioi_prompts(20, 0))
        means = ioi.mean_outputs(model, batch, seed=0)
        gone = ioi.without([(0, 1)], batch, means)
        lacking = giver.at_end(model, batch, gone)
        later = ioi.without([(1, head) for head in range(3)], batch, lacking.z)
        hooks = [*gone, *later, *giver.fixed_mlps(0, batch, lacking.mlps)]
        whole, all_routes = (giver.answers(model, batch, of, 0)["logit difference"] for of in (gone, hooks))
        assert all_routes == pytest.approx(whole, abs=1e-4)

    def test_a_planted_route_is_found_and_the_others_are_not(self):
        """Head 0.0 writes u at END; only the MLP of layer 1 reads u, and writes the answer."""
        cfg, state = blank(8, 2, 1, 8)
        u, v = torch.zeros(8), torch.zeros(8)
        u[:2], v[2:4] = torch.tensor([1.0, -1.0]), torch.tensor([1.0, -1.0])
        state["embed.W_E"][:, 6:] = torch.tensor([1000.0, -1000.0])
        state["blocks.0.attn.b_V"][0, 0] = 1.0
        state["blocks.0.attn.W_O"][0, 0] = u
        state["blocks.1.mlp.W_in"][:, 0] = 500 * u
        state["blocks.1.mlp.b_in"][0] = 3.0
        state["blocks.1.mlp.W_out"][0] = 100 * v
        state["unembed.W_U"][:, token_id("she")] = v
        model = hooked_transformer(cfg, state)
        batch = measuring.to_batch(ioi_prompts(8, 0))
        batch = batch._replace(answers=torch.full((8,), token_id("she")), foils=torch.full((8,), token_id("he")))
        gone = ioi.without([(0, 0)], batch, torch.zeros(8, 2, 1, 8))
        clean, lacking = giver.at_end(model, batch), giver.at_end(model, batch, gone)
        later = {name: ioi.without([(1, 0)], batch, run.z) for name, run in (("clean", clean), ("lacking", lacking))}

        def difference(hooks):
            return giver.answers(model, batch, hooks, 0)["logit difference"]["value"]

        whole = difference([]) - difference(gone)
        assert whole > 0.1
        assert difference([]) - difference(giver.fixed_mlps(0, batch, lacking.mlps)) == pytest.approx(whole, rel=1e-3)
        assert difference([]) - difference(later["lacking"]) == pytest.approx(0, abs=1e-4)
        direct = [*gone, *later["clean"], *giver.fixed_mlps(0, batch, clean.mlps)]
        assert difference([]) - difference(direct) == pytest.approx(0, abs=1e-4)

    def test_another_receivers_name_is_said_if_the_copying_head_brings_it(self):
        """Head 1.0 copies the receiver to the end; head 1.1 and layer 0 do nothing."""
        prompts = TestIOI().one_template()
        batch = measuring.to_batch([replace(prompt, unit=None) for prompt in prompts])
        n_ctx = 16
        width = n_ctx + N_VOCAB
        cfg, state = blank(width, 2, 2, d_head=width, n_ctx=n_ctx)
        state["pos_embed.W_pos"][:, :n_ctx] = torch.eye(n_ctx)
        state["embed.W_E"][:, n_ctx:] = torch.eye(N_VOCAB)
        state["blocks.1.attn.W_Q"][0, int(batch.at["END"][0]), 0] = 1000.0
        state["blocks.1.attn.W_K"][0, int(batch.at["IO"][0]), 0] = 1.0
        state["blocks.1.attn.W_V"][0] = torch.eye(width)
        state["blocks.1.attn.W_O"][0] = 5 * torch.eye(width)
        state["unembed.W_U"][n_ctx:] = torch.eye(N_VOCAB)
        model = hooked_transformer(cfg, state)
        found = giver.copying(model, batch, [(1, 0)], [], seed=0)["another receiver"]
        assert found["all"]["says the other"]["value"] == 1 and found["all"]["accuracy"]["value"] == 0
        for name in ("preferring heads", "other heads"):
            assert found[name]["says the other"]["value"] == 0 and found[name]["accuracy"]["value"] == 1


class TestFacts:
    def planted_memory(self):
        """Head 1.0 looks from END at the subject's last word and turns that word into the answer."""
        second = {landmark.second: landmark for landmark in landmarks() if landmark.first == "Eiffel"}
        prompts = [fact_prompt(landmark, "city", 0) for landmark in second.values()]
        batch = measuring.to_batch(prompts)
        n_ctx, width = 16, 32
        d_model = n_ctx + 2 * width
        cfg, state = blank(d_model, 2, 1, d_head=width, n_ctx=n_ctx)
        generator = torch.Generator().manual_seed(0)
        state["pos_embed.W_pos"][:, :n_ctx] = 6 * torch.eye(n_ctx)
        state["embed.W_E"][:, n_ctx : n_ctx + width] = torch.randn(N_VOCAB, width, generator=generator)
        for i, word in enumerate(second):  # no two of the words alike, whatever the vocabulary
            state["embed.W_E"][token_id(word), n_ctx : n_ctx + width] = 2 * torch.eye(width)[i]
        end, last = int(batch.at["END"][0]), int(batch.at["last"][0])
        state["blocks.1.attn.W_Q"][0, end, 0] = 100.0
        state["blocks.1.attn.W_K"][0, last, 0] = 1.0
        state["blocks.1.attn.W_V"][0, n_ctx : n_ctx + width] = torch.eye(width)
        state["blocks.1.attn.W_O"][0, :, n_ctx + width :] = 5 * torch.eye(width)
        for word, landmark in second.items():
            memory = state["embed.W_E"][token_id(word), n_ctx : n_ctx + width]
            state["unembed.W_U"][n_ctx + width :, token_id(landmark.city)] += memory
        return hooked_transformer(cfg, state), batch

    def test_tracing_finds_the_planted_site_and_no_other(self):
        model, batch = self.planted_memory()
        run = facts.trace(model, batch, seed=0)
        assert run.clean_p.mean() > 0.99 and run.noisy_p.mean() < 0.9
        share = {
            (layer, kind, position): facts.restored(model, run, [(layer, kind)], position, seed=0)["value"]
            for layer in (0, 1)
            for kind in facts.SITES
            for position in facts.POSITIONS
        }
        whole = {(0, "resid", "last"), (1, "resid", "END"), (1, "attn", "END")}
        for site, value in share.items():
            assert value == pytest.approx(float(site in whole), abs=1e-3), site

    def test_the_edge_that_carries_the_fact_is_found(self):
        model, batch = self.planted_memory()
        measured = facts.edges_knocked_out(model, batch, seed=0)
        for layer, of in ((0, "the subject"), (0, "its last token"), (0, "two other tokens"), (1, "two other tokens")):
            assert measured[f"{of} in layer {layer}"]["value"] == 1
        for of in ("the subject", "its last token"):
            assert measured[f"{of} in layer 1"]["value"] < 0.6

    def test_only_the_subject_is_drowned(self):
        model, batch = self.planted_memory()
        run = facts.trace(model, batch, seed=0)
        name, add = facts.drown(run)
        zero = torch.zeros(*run.batch.tokens.shape, model.cfg.d_model)
        noisy = add(zero, None)
        drowned = (noisy != 0).any(-1).nonzero()[:, 1].unflatten(0, (-1, 2))
        assert torch.equal(drowned, torch.stack([run.batch.at["first"], run.batch.at["last"]], dim=1))
        assert noisy[noisy != 0].std() == pytest.approx(3 * model.W_E.std().item(), rel=0.05)

    def test_blocked_edges_get_no_attention_and_the_rest_still_adds_up(self):
        model, batch = random_model(), measuring.to_batch([fact_prompt(landmarks()[5], r, 0) for r in PHRASINGS])
        keys = torch.stack([batch.at["first"], batch.at["last"]], dim=1)
        with model.hooks(fwd_hooks=[facts.blind(batch, 1, keys)]):
            _, cache = model.run_with_cache(batch.tokens)
        pattern = cache["blocks.1.attn.hook_pattern"][batch.rows(), :, batch.at["END"]]
        assert not pattern[batch.rows()[:, None], :, keys].any()
        torch.testing.assert_close(pattern.sum(-1), torch.ones(4, 3))

    def test_a_model_that_knows_nothing_cannot_be_traced(self):
        cfg, state = blank(8, 1, 1, 8)
        with pytest.raises(ValueError, match="knows no fact"):
            facts.known_facts(hooked_transformer(cfg, state), seed=0)


class TestEdit:
    def memory(self, seed=0, keys=200, d_mlp=12, d_model=5):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(keys, d_mlp, generator=generator) @ torch.randn(d_mlp, d_mlp, generator=generator)
        weights, bias = torch.randn(d_mlp, d_model, generator=generator), torch.randn(d_model, generator=generator)
        key, value = torch.randn(d_mlp, generator=generator), torch.randn(d_model, generator=generator)
        return hidden, weights, bias, key, value

    def test_the_key_gives_the_value_and_the_change_has_rank_one(self):
        hidden, weights, bias, key, value = self.memory()
        change = edit.rank_one(weights, bias, hidden.T @ hidden / len(hidden), key, value)
        torch.testing.assert_close(key @ (weights + change) + bias, value, atol=1e-4, rtol=1e-4)
        assert torch.linalg.matrix_rank(change) == 1

    def test_no_other_change_that_stores_the_value_disturbs_the_keys_less(self):
        hidden, weights, bias, key, value = (x.double() for x in self.memory())
        change = edit.rank_one(weights, bias, hidden.T @ hidden / len(hidden), key, value)
        least = (hidden @ change).square().sum()
        generator = torch.Generator().manual_seed(1)
        for scale in (1e-3, 1e-1, 1.0):
            other = scale * torch.randn(change.shape, generator=generator, dtype=torch.double)
            other -= torch.outer(key, key @ other) / (key @ key)  # leaves the key's value alone
            assert (hidden @ (change + other)).square().sum() > least

    def test_a_key_that_others_never_overlap_leaves_them_alone(self):
        hidden, weights, bias, key, value = self.memory()
        hidden[:, 0], key = 0.0, torch.eye(12)[0]
        moment = hidden.T @ hidden / len(hidden) + 1e-3 * torch.eye(12)
        change = edit.rank_one(weights, bias, moment, key, value)
        torch.testing.assert_close(hidden @ change, torch.zeros(200, 5), atol=1e-4, rtol=0)

    def test_the_second_moment_is_of_the_hidden_activations(self):
        model, tokens = random_model(), repeated_random_tokens(3, 8, 0)
        _, cache = model.run_with_cache(tokens)
        hidden = cache["blocks.1.mlp.hook_post"].flatten(0, 1)
        expected = sum(torch.outer(h, h) for h in hidden) / len(hidden)
        expected += edit.RIDGE * expected.diagonal().mean() * torch.eye(40)
        torch.testing.assert_close(edit.second_moment(model, 1, tokens), expected, atol=1e-4, rtol=1e-4)

    def test_an_edit_is_undone_to_the_bit(self):
        model = random_model()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(RuntimeError), edit.edited(model, 1, torch.randn(40, 24)):
            assert not torch.equal(model.blocks[1].mlp.W_out, before["blocks.1.mlp.W_out"])
            raise RuntimeError
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_edits_ask_for_new_cities_and_keep_fitting_and_testing_apart(self):
        plan = edit.edits(60, seed=0)
        assert len({one.landmark for one in plan}) == 60
        for one in plan:
            assert COUNTRY_OF_CITY[one.city] != one.landmark.country
            assert {prompt.answer for prompt in one.moves + one.paraphrases} == {one.city}
            fitted, tested = ({prompt.kind for prompt in prompts} for prompts in (one.moves, one.paraphrases))
            assert len(fitted) == len(tested) == 3 and not fitted & tested
            kept = {prompt.kind for prompt in one.keeps}
            assert not kept & {prompt.kind for prompts in one.own.values() for prompt in prompts}

    def test_behind_other_text_the_positions_still_point_at_the_subject(self):
        for one in edit.edits(20, seed=1):
            for prompt in one.in_text:
                tokens = ["<bos>", *words(prompt.text)]
                assert tokens[prompt.at["first"]] == one.landmark.first
                assert tokens[prompt.at["last"]] == one.landmark.second
                assert prompt.at["END"] == len(tokens) - 1

    def test_bystanders_are_all_but_the_one(self):
        groups = edit.bystanders(landmarks()[3])
        assert [int(group.sum()) for group in groups.values()] == [119, 14, 357]
        assert not any(group[3::120].any() for group in groups.values())

    def test_fitted_values_raise_the_new_city(self):
        model, plan = random_model(), edit.edits(3, seed=0)
        old = edit.subject_means(model, "blocks.0.hook_mlp_out", [one.moves for one in plan])
        values = edit.fitted_values(model, 0, plan)
        moves = measuring.to_batch([prompt for one in plan for prompt in one.moves])
        streams = edit.stream_before(model, 0, moves)
        before, after = (
            edit.logits_with(model, 0, moves, streams, v).log_softmax(1)[moves.rows(), moves.answers].detach()
            for v in (old, values)
        )
        assert ((after - before).unflatten(0, (3, -1)).mean(1) > 0.1).all()
        assert ((values - old).norm(dim=1) <= edit.LONGEST * old.norm(dim=1) * 1.001).all()


class TestWhatTheCourseModelCanDo:
    """Thresholds that the chapters rely on, and agreement with the model card; what is not reached is marked."""

    def test_tasks(self, measure_again, measured, expect_agreement):
        figures = measure_again("tasks")
        for relation in PHRASINGS:
            assert figures["facts"][relation]["value"] >= 0.97, relation
        assert figures["quotes"]["accuracy"]["value"] >= 0.97
        for task in ("facts", "quotes", "agreement", "gender", "brackets", "dates"):
            expect_agreement(figures[task], measured["tasks"][task])

    def test_who_receives(self, measure_again):
        for name, group in measure_again("tasks")["ioi"].items():
            assert group["accuracy"]["value"] >= 0.98, name
            assert group["logit difference"]["value"] >= 4, name

    def test_who_receives_in_unfamiliar_sentences(self, measure_again, measured, expect_agreement):
        """It is right in sentences like those of training, and about half of the time in others."""
        figures = measure_again("tasks")["ioi, unfamiliar sentences"]
        assert len(figures) == 13 and figures["all"]["n"] == 12 and figures["all"]["high"] < 0.9
        by_form = [found["value"] for name, found in figures.items() if name != "all"]
        assert 2 <= sum(value >= 0.9 for value in by_form) <= 6 and sum(value <= 0.1 for value in by_form) >= 2
        expect_agreement(figures, measured["tasks"]["ioi, unfamiliar sentences"])

    def test_induction(self, measure_again, measured, expect_agreement):
        figures = measure_again("induction")
        assert figures["best"]["induction"]["score"] >= 0.8
        assert figures["best"]["previous token, random tokens"]["score"] >= 0.7
        assert max(figures["null"]["induction"], figures["null"]["previous token"]) < 0.2
        assert figures["loss, second time"]["high"] < 0.15
        for layer, name, least in ((2, "induction", 0.8), (1, "previous token, random tokens", 0.5)):
            found = [head for head, scores in figures["heads"].items() if scores[name] > least]
            assert found == [f"{layer}.{head}" for head in range(4 if layer == 2 else 2)], name
        assert figures["loss, second time, by period"]["4"]["low"] > 1
        assert all(figures["loss, second time, by period"][period]["high"] < 0.3 for period in ("8", "12", "20", "40"))
        expect_agreement(figures, measured["induction"])

    def test_loss_on_a_repetition(self, measure_again):
        assert measure_again("induction")["loss, second time"]["value"] < 0.1

    def test_ioi_heads(self, measure_again, measured, expect_agreement):
        expect_agreement(measure_again("ioi")["heads"], measured["ioi"]["heads"])

    def test_ioi_roles(self, measure_again, measured):
        figures = measure_again("ioi")
        assert figures["roles"]["giver"] == ["1.3"] and figures["roles"]["duplicate token"] == []
        assert figures["roles"]["copy names"] == [f"{layer}.{head}" for layer in (2, 3) for head in range(4)]
        assert set(figures["roles"]["prefer the receiver"]) == {"3.1", "3.2", "3.3"}
        assert figures["direct effect"]["share of the helping heads' effect"]["low"] > 0.5
        knocked_out = figures["giver heads knocked out"]
        before, after = knocked_out["before"], knocked_out["after"]
        control = knocked_out["after, random other heads"]
        to_io, to_s1 = "attention to IO", "attention to S1"
        assert before[to_io] - before[to_s1] > 0.2
        assert after[to_io] - after[to_s1] < 0.5 * (before[to_io] - before[to_s1])
        assert after[to_io] < control[to_io]["low"]
        assert after["logit difference"] < control["logit difference"]["low"]
        assert after[to_s1] > control[to_s1]["high"]

    def test_head_1_3_looks_at_the_giver_whoever_is_said_twice(self, measure_again):
        """Four scenes hold one of the two properties and vary the other; the head follows the giver in each."""
        figures = measure_again("giver")
        for scene, heads in figures["attention"].items():
            assert list(heads) == ["1.3"], scene
            assert heads["1.3"]["giver"]["low"] > 0.88 and heads["1.3"]["owner"]["high"] < 0.1, scene
            assert heads["1.3"]["opening"]["high"] < 0.03, scene

    def test_its_output_tells_who_gives_and_not_who_is_said_twice(self, measure_again):
        found = measure_again("giver")["output"]
        usual = found["giver twice"]["logit difference"]["value"]
        for scene in ("nobody twice", "another twice"):
            assert found[scene]["logit difference"]["value"] > 0.9 * usual, scene
            assert found[scene]["accuracy"]["value"] > 0.95, scene
        assert found["another gives"]["logit difference"]["high"] < 0.25 * usual
        assert found["another gives"]["accuracy"]["value"] < 0.7

    def test_it_knows_the_giver_by_place(self, measure_again):
        """In the passive the owner is first behind the opening: the head looks at the owner, and the model errs."""
        for owner, found in measure_again("giver")["passive"].items():
            assert found["attention"]["1.3"]["owner"]["low"] > 0.75, owner
            assert found["attention"]["1.3"]["giver"]["high"] < 0.25, owner
        found = measure_again("giver")["passive"]["the receiver"]
        assert found["says the giver"]["low"] > 0.85 and found["says the receiver"]["high"] < 0.15

    def test_three_routes_lead_from_it_to_the_answer(self, measure_again):
        found = measure_again("giver")["routes"]
        whole = found["nothing"]["logit difference"]["value"] - found["whole model"]["logit difference"]["value"]
        assert found["whole model"]["accuracy"]["value"] < 0.7
        for route, least, most in (("all later heads", 0.2, 0.5), ("MLPs", 0.4, 0.65), ("direct", 0.2, 0.45)):
            fall = found["nothing"]["logit difference"]["value"] - found[route]["logit difference"]["value"]
            assert least * whole < fall < most * whole, route
            assert found[route]["accuracy"]["value"] > 0.9, route

    def test_copying_heads_supply_a_name_and_mostly_not_which(self, measure_again):
        found = measure_again("giver")["copying heads"]
        gone, other = found["knocked out"], found["another receiver"]
        assert gone["all"]["accuracy"]["value"] < 0.05 and gone["all"]["logit difference"]["low"] > 5
        assert gone["preferring heads"]["accuracy"]["value"] > 0.95
        assert other["all"]["says the other"]["value"] > 0.97 and other["other heads"]["says the other"]["high"] < 0.1
        assert other["preferring heads"]["says the other"]["high"] < 0.2  # those three alone do not bring the name

    def test_the_giver_is_measured_as_the_card_says(self, measure_again, measured, expect_agreement):
        expect_agreement(measure_again("giver"), measured["giver"])

    @pytest.mark.parametrize(
        ("text", "person"),
        [
            ("When Mary and Carl went to the park, the baker gave a ball to", "baker"),
            ("When Mary and Carl were in the park, Nina gave Mary's ball to", "Nina"),
            ("As Mary and Carl sat in the shop, Mary thanked", "Mary"),
            ("Mary, Carl and Nina met at the zoo. Carl gave a ball to", "Carl"),
            ("When Mary and Carl went to the park, Nina's ball was handed by Carl to", "Nina"),
            ("When Mary and Carl went to the park, Carl's dog gave a ball to", "Carl"),
            ("When Mary and Carl went to the park, Carl", "Carl"),
        ],
    )
    def test_where_head_1_3_looks(self, course_model, text, person):
        """At whoever is first behind the opening: giver or not, twice or not, even if nobody gives anything yet."""
        assert giving_roles(text).first == person
        text += "" if text.endswith(("to", "thanked")) else " to"
        assert ioi.attention_to_people(course_model, text, 1, 3)[person] > 0.7

    def test_facts(self, measure_again, measured, expect_agreement):
        figures = measure_again("facts")
        assert figures["best site at the last subject token"]["low"] > 0.4
        expect_agreement(figures, measured["facts"])

    def test_one_site_brings_back_half(self, measure_again):
        assert measure_again("facts")["best site at the last subject token"]["value"] >= 0.5

    def test_rank_one_edits(self, measure_again, measured, expect_agreement):
        figures = measure_again("edit")
        assert figures["efficacy"]["n"] >= 50
        assert figures["efficacy"]["value"] >= 0.9
        assert figures["paraphrase"]["value"] >= 0.7
        for others in ("others' cities", "others' other relations"):
            assert figures[others]["value"] >= 0.9, others
        assert figures["null, random value"]["efficacy"]["high"] < 0.3
        expect_agreement(figures, measured["edit"])
