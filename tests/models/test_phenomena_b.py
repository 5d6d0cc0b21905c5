"""What the model's activations say: the measuring code on cases with a known answer, then the shipped model."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from utils.data.corpus import vocabulary
from utils.data.prompts import Prompt, documents, quote_prompts, token_id, token_labels
from utils.data.world import DAYS, MONTHS, NAMES
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.models.network import Network
from utils.models.phenomena import calendar, dictionary, lenses, neurons, quotes
from utils.models.phenomena.measuring import to_batch

N_VOCAB = len(vocabulary())


def draws(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state_of(d_model=16, n_layers=2):
    """Sizes, and weights with layer norms of ones and all else zero: every layer passes its input on."""
    cfg = TransformerConfig(d_model, n_layers, n_heads=2, d_head=4, d_mlp=12, n_ctx=96, d_vocab=N_VOCAB)
    state = Network(cfg, torch.Generator().manual_seed(0)).standard_state()
    ones = (".ln1.w", ".ln2.w", "ln_final.w")
    return cfg, {name: torch.full_like(value, float(name.endswith(ones))) for name, value in state.items()}


def random_model(seed=0):
    cfg, state = state_of()
    noise = {name: 0.4 * draws(seed + i, *value.shape) for i, (name, value) in enumerate(state.items())}
    return hooked_transformer(cfg, {name: value + noise[name] for name, value in state.items()})


def copying_model(seed=0):
    """Its answer is the word it reads: embedding and unembedding are one matrix, and the layers do nothing."""
    cfg, state = state_of(d_model=64)
    state["embed.W_E"] = torch.nn.functional.normalize(draws(seed, N_VOCAB, 64), dim=1)
    state["unembed.W_U"] = state["embed.W_E"].T.clone()
    return hooked_transformer(cfg, state)


class TestLenses:
    def test_kl_is_pytorchs(self):
        log_p, log_q = draws(0, 2, 3, 7).log_softmax(-1), draws(1, 2, 3, 7).log_softmax(-1)
        expected = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
        torch.testing.assert_close(lenses.kl(log_p, log_q), expected)

    def test_sites_are_what_the_model_computes(self):
        model, tokens = random_model(), documents(40, 0)
        resid = lenses.activations(model, tokens, lenses.sites(model))
        assert list(resid) == ["embed", "layer 0", "layer 1"]
        torch.testing.assert_close(resid["embed"], model.W_E[tokens] + model.W_pos[: tokens.shape[1]])
        log_probs = lenses.lens_log_probs(model, resid["layer 1"])
        torch.testing.assert_close(log_probs, model(tokens).log_softmax(-1), atol=1e-4, rtol=1e-4)

    def test_there_is_nothing_to_learn_behind_the_last_layer(self):
        found = lenses.lens_kl(random_model(), documents(10, 0))
        assert found["layer 1"]["value"] == pytest.approx(0, abs=1e-6)
        assert found["layer 0"]["value"] > 0.05

    def test_a_tuned_lens_learns_what_the_layers_above_add(self):
        cfg, state = state_of()
        state |= {name: draws(i, *state[name].shape) for i, name in enumerate(("embed.W_E", "unembed.W_U"))}
        state["blocks.1.mlp.b_out"] = 3 * draws(7, 16)
        model, train, test = hooked_transformer(cfg, state), documents(40, 0), documents(20, 1)
        before = torch.get_rng_state()
        translators = lenses.fit_tuned_lens(model, train, seed=0, n_steps=400)
        assert torch.equal(torch.get_rng_state(), before)
        logit, tuned = lenses.lens_kl(model, test), lenses.lens_kl(model, test, translators)
        assert list(tuned) == ["embed", "layer 0"]
        for site in tuned:
            assert tuned[site]["value"] < 0.05 < 0.5 < logit[site]["value"]
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_a_model_that_copies_ranks_its_word_first_at_every_site(self):
        words = ["Mary", "park", "Paris"]
        right = to_batch([Prompt(f"The {word}", word, at={"END": 2}) for word in words])
        wrong = to_batch([Prompt(f"The {word}", "Oslo", at={"END": 2}) for word in words])
        for site, found in lenses.answer_rank(copying_model(), right).items():
            assert found["rank"]["value"] == 0 and found["top"]["value"] == 1, site
        for site, found in lenses.answer_rank(copying_model(), wrong).items():
            assert found["rank"]["value"] > 5 and found["top"]["value"] == 0, site

    def test_a_rank_counts_the_words_above_the_answer(self):
        model = copying_model()
        batch = to_batch([Prompt("The park", "Oslo", at={"END": 2}), Prompt("The", "Rome", at={"END": 1})])
        logits = model(batch.tokens)[batch.rows(), batch.at["END"]]
        by_hand = [(row > row[token_id(word)]).sum().item() for row, word in zip(logits, ("Oslo", "Rome"), strict=True)]
        assert lenses.answer_rank(model, batch)["layer 1"]["rank"]["value"] == sum(by_hand) / 2


class TestQuotes:
    def test_documents_are_chosen_for_their_quotation_marks(self):
        found = quotes.quoting_documents(20, 0)
        assert found.shape == (20, 96) and (found == token_id('"')).any(1).all()

    def test_the_words_do_not_tell(self):
        tokens = quotes.quoting_documents(60, 0)
        inside = token_labels(tokens)["inside quotes"]
        chosen = quotes.balanced(tokens, inside, seed=0)
        assert chosen.sum() > 300
        for side in (inside, ~inside):
            counts = torch.bincount(tokens[chosen & side], minlength=N_VOCAB)
            available = [torch.bincount(tokens[part], minlength=N_VOCAB) for part in (inside, ~inside)]
            expected = torch.minimum(*available)
            expected[token_id('"')] = 0
            assert torch.equal(counts, expected)

    def test_the_choice_is_random_and_seeded(self):
        tokens = quotes.quoting_documents(20, 0)
        inside = token_labels(tokens)["inside quotes"]
        first, again, other = (quotes.balanced(tokens, inside, seed) for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)

    @pytest.mark.parametrize("penalty", [1e-3, 0.1])
    def test_the_logistic_probe_is_scikit_learns(self, penalty):
        x = draws(0, 400, 6) @ draws(1, 6, 6) + 3
        labels = x[:, 0] + 2 * draws(2, 400) > 4
        probe = quotes.logistic_probe(x, labels, penalty)
        scale = (x - x.mean(0)).square().mean().sqrt()
        oracle = LogisticRegression(C=1 / (2 * penalty * 400), tol=1e-10, max_iter=10_000)
        oracle.fit(((x - x.mean(0)) / scale).double().numpy(), labels.numpy())
        direction = torch.from_numpy(oracle.coef_[0]).float() / scale
        torch.testing.assert_close(probe.direction, direction, atol=1e-3, rtol=1e-3)
        threshold = direction @ x.mean(0) - oracle.intercept_.item()
        assert probe.threshold.item() == pytest.approx(threshold.item(), abs=5e-3)

    def test_the_logistic_probe_converges_where_the_classes_come_apart(self):
        x = torch.cat([draws(0, 100, 5) + 4, draws(1, 100, 5) - 4])
        labels = torch.arange(200) < 100
        probe = quotes.logistic_probe(x, labels)
        assert torch.equal(probe(x), labels) and probe.direction.isfinite().all()

    def test_the_mass_mean_probe_is_the_difference_of_the_means(self):
        x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
        probe = quotes.mass_mean_probe(x, torch.tensor([True, True, False, False]))
        assert probe.direction.tolist() == [2.0, -3.0] and probe.threshold.item() == pytest.approx(2 * 1 - 3 * 1.5)

    def planted(self, seed, strength):
        """Activations: a vector for each of 40 words, and a direction for "inside"."""
        words, inside = torch.randint(40, (2000,), generator=torch.Generator().manual_seed(seed)), draws(seed, 2000) > 0
        x = draws(99, 40, 32)[words] + strength * inside[:, None] * draws(98, 32) + 0.1 * draws(seed + 1, 2000, 32)
        return quotes.Drawn({"here": x}, inside, words, torch.arange(2000) // 50)

    @pytest.mark.parametrize(("strength", "low", "high"), [(1.0, 0.99, 1.0), (0.0, 0.44, 0.56)])
    def test_a_planted_direction_is_found_and_an_absent_one_is_not(self, strength, low, high):
        train, test = self.planted(10, strength), self.planted(20, strength)
        ends, inside = test.resid["here"][:100], test.inside[:100]
        found = quotes.probe_site(train, test, "here", ends, inside)
        assert low <= found["logistic"]["value"] <= high
        assert low <= found["logistic, before a verb"]["value"] <= high or strength == 0
        assert found["selectivity"]["value"] == pytest.approx(found["logistic"]["value"] - found["control"]["value"])

    def test_control_labels_belong_to_words(self):
        easy = self.planted(10, 0.0)
        far_apart = {"here": 10 * torch.eye(40)[easy.words]}
        easy, test = easy._replace(resid=far_apart), self.planted(20, 0.0)
        test = test._replace(resid={"here": 10 * torch.eye(40)[test.words]})
        assert quotes.control_accuracy(easy, test, "here", seed=0) == 1.0

    def test_removing_leaves_a_probe_undecided_and_the_rest_alone(self):
        probe, x = quotes.Probe(draws(0, 8), torch.tensor(0.7)), draws(1, 3, 5, 8)
        left = quotes.remove(x, probe)
        torch.testing.assert_close(left @ probe.direction, torch.full((3, 5), 0.7))
        moved = left - x
        along = moved @ probe.direction / probe.direction.norm()
        torch.testing.assert_close(moved.norm(dim=-1), along.abs())

    def test_steering_pushes_to_the_other_side(self):
        x, direction = draws(0, 2, 4, 3), torch.tensor([1.0, 2.0, 0.0])
        moved = quotes.steer(x, direction, torch.tensor([True, False])) - x
        torch.testing.assert_close(moved, torch.stack([-direction, direction])[:, None].expand(2, 4, 3))

    def test_going_on_from_a_layer_is_the_model_with_a_hook_there(self):
        model, batch = random_model(), to_batch(quote_prompts(6, 0))
        resid = lenses.activations(model, batch.tokens, lenses.sites(model))
        whole = quotes.tense_difference(model(batch.tokens)[batch.rows(), batch.at["END"]])
        direction = draws(3, 16)
        hooked = model.run_with_hooks(
            batch.tokens, fwd_hooks=[("blocks.0.hook_resid_post", lambda value, hook: value + direction)]
        )[batch.rows(), batch.at["END"]]
        for layer in range(2):
            untouched = quotes.tense_from(model, resid[f"layer {layer}"], layer, batch)
            torch.testing.assert_close(untouched, whole, atol=1e-4, rtol=1e-4)
        changed = quotes.tense_from(model, resid["layer 0"] + direction, 0, batch)
        torch.testing.assert_close(changed, quotes.tense_difference(hooked), atol=1e-4, rtol=1e-4)
        assert (changed - whole).abs().max() > 0.1

    def test_a_summary_counts_the_wrong_tense(self):
        found = quotes.summary(torch.tensor([1.0, -1.0, -2.0, -3.0]), torch.tensor([True, True, False, False]))
        assert (found["inside"]["value"], found["outside"]["value"], found["wrong tense"]["value"]) == (0, -2.5, 0.25)

    def test_random_directions_are_as_long_and_point_anywhere(self):
        probes = quotes.random_probes(draws(0, 50, 12) + 1, quotes.Probe(3 * torch.ones(12), torch.tensor(0.0)), seed=0)
        lengths = torch.stack([probe.direction.norm() for probe in probes])
        torch.testing.assert_close(lengths, torch.full_like(lengths, 3 * math.sqrt(12)))
        assert len(probes) >= 20 and torch.stack([p.direction for p in probes]).mean(0).norm() < lengths[0] / 2


class TestDictionary:
    def test_it_finds_the_directions_that_data_are_made_of(self):
        true = torch.nn.functional.normalize(draws(0, 24, 16), dim=1)
        on = torch.rand(20_000, 24, generator=torch.Generator().manual_seed(1)).argsort(1) < 2
        data = (on * (1 + torch.rand(20_000, 24, generator=torch.Generator().manual_seed(2)))) @ true + 5
        before = torch.get_rng_state()
        sae = dictionary.train_topk(data, seed=0, d_sae=48, k=2, n_steps=300)
        assert torch.equal(torch.get_rng_state(), before)
        cosines = (true @ sae.decoder.T).amax(1)
        assert (cosines > 0.95).sum() >= 20
        torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(48))
        error = (sae.decode(sae.encode(data)) - data).square().sum() / (data - data.mean(0)).square().sum()
        assert error < 0.05

    def test_at_most_k_latents_are_left_the_largest(self):
        x = draws(0, 5, 9)
        kept = dictionary.keep_largest(x, 3)
        assert (kept != 0).sum(1).tolist() == [3] * 5
        torch.testing.assert_close(kept.sort(1, descending=True).values.amax(1), x.amax(1))
        torch.testing.assert_close(kept.sum(1), x.topk(3, 1).values.sum(1))

    def test_dead_latents_get_a_gradient_only_through_the_second_part_of_the_loss(self):
        decoder = torch.nn.functional.normalize(draws(0, 6, 4), dim=1)
        bias = torch.zeros(6)
        bias[0] = -100.0
        x = draws(1, 64, 4)

        def gradient(dead):
            sae = dictionary.TopK(decoder.T.clone().requires_grad_(), bias, decoder, torch.zeros(4), 2)
            loss, fired = dictionary.topk_loss(sae, x, dead)
            return torch.autograd.grad(loss, sae.encoder)[0], fired

        alive, fired = gradient(torch.zeros(6, dtype=torch.bool))
        assert not fired[0] and fired[1:].all()
        revived, _ = gradient(torch.arange(6) == 3)
        assert not torch.equal(revived[:, 3], alive[:, 3])
        torch.testing.assert_close(revived[:, [1, 2, 4, 5]], alive[:, [1, 2, 4, 5]])

    def test_a_perfect_dictionary_recovers_everything_and_an_empty_one_nothing(self):
        model, tokens = random_model(), documents(12, 0)
        x = dictionary.residual(model, tokens, 0)
        eye = torch.eye(16)
        perfect = dictionary.TopK(
            torch.cat([eye, -eye], 1), torch.zeros(32), torch.cat([eye, -eye]), torch.zeros(16), 16
        )
        found = dictionary.quality(perfect, model, tokens, x, layer=0)
        assert found["loss recovered"]["value"] == pytest.approx(1, abs=1e-3)
        assert found["variance unexplained"]["value"] < 1e-8 and found["dead"] == 0 and found["L0"]["value"] == 16
        logits = model(tokens)[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).item()
        assert found["loss"]["value"] == pytest.approx(loss, rel=1e-4)
        silent = perfect._replace(encoder_bias=torch.full((32,), -1e3), bias=x[:, 1:].mean((0, 1)))
        found = dictionary.quality(silent, model, tokens, x, layer=0)
        assert found["loss recovered"]["value"] == pytest.approx(0, abs=1e-4) and found["dead"] == 1
        assert found["variance unexplained"]["value"] == pytest.approx(1, abs=1e-5)

    def test_the_residual_stream_is_that_behind_the_layer(self):
        model, tokens = random_model(), documents(40, 0)
        expected = lenses.activations(model, tokens, lenses.sites(model))["layer 0"]
        torch.testing.assert_close(dictionary.residual(model, tokens, 0), expected)

    def test_f1_is_scikit_learns(self):
        on, label = draws(0, 20, 30) > 0.5, draws(1, 20, 30) > 0
        expected = f1_score(label.flatten().numpy(), on.flatten().numpy())
        assert dictionary.f1_by_document(on, label)["value"] == pytest.approx(expected)

    def test_the_latent_of_a_label_is_found_and_scored_on_other_documents(self):
        label, other = draws(0, 40, 50) > 1, draws(1, 40, 50) > 1
        latents = draws(2, 40, 50, 12).relu()
        latents[..., 7] = label * (5 + draws(3, 40, 50)) + (~label) * draws(4, 40, 50).relu()
        latents[:20, :, 3] = 9.0 * other[:20]  # a latent that lets a label down in the second half
        found = dictionary.matches(latents, {"label": label, "other": other})
        assert found["label"].latent == 7 and found["label"].f1["value"] > 0.95 and found["label"].threshold > 0
        assert found["other"].latent == 3 and found["other"].f1["value"] < 0.5
        assert dictionary.count_matched(found) == 1

    def test_labels_that_belong_to_other_documents_match_nothing(self):
        label = draws(0, 40, 50) > 1
        latents = torch.cat([label[..., None] * 3.0, draws(2, 40, 50, 200).relu()], dim=2)
        found = dictionary.matches(latents, {"label": label.roll(1, 0)})
        assert found["label"].f1["value"] < 0.45


class TestNeurons:
    def test_the_top_tokens_are_those_of_all_documents_together(self):
        model, tokens = random_model(), documents(70, 0)
        _, cache = model.run_with_cache(tokens)
        for layer, top in enumerate(neurons.top_tokens(model, tokens)):
            post = cache[f"blocks.{layer}.mlp.hook_post"]
            expected = post[:, 1:-1].flatten(0, 1).topk(neurons.N_TOP, dim=0).values
            torch.testing.assert_close(top.values, expected)
            where = post[top.documents, top.positions, torch.arange(post.shape[2])]
            torch.testing.assert_close(where, expected)

    def test_overlap(self):
        assert neurons.overlap([1, 1, 2, 3], [1, 1, 2, 3]) == 1
        assert neurons.overlap([1, 2], [3, 4]) == 0
        assert neurons.overlap([1, 1, 1, 2], [1, 5, 5, 5]) == pytest.approx(0.25)

    def judged(self, contexts, weaker=()):
        """Whether a neuron is polysemantic whose top tokens are the middle words of these contexts, 20 times each."""
        rows = torch.tensor([[token_id(word) for word in context.split()] for context in contexts]).repeat(20, 1)
        values = torch.full((len(rows), 1), 2.0)
        for index in weaker:
            values[index :: len(contexts)] = 0.9
        top = neurons.Top(values, torch.arange(len(rows))[:, None], torch.ones(len(rows), 1, dtype=torch.long))
        return neurons.polysemantic(top, rows, neurons.family_of_words())

    def test_two_families_in_unlike_surroundings(self):
        found = self.judged(["and Mary went", "of granite ."])
        assert set(found[0].families) == {"people", "materials"} and len(found[0].rows[0]) == 20

    @pytest.mark.parametrize(
        "contexts",
        [
            ["and Mary went", "to Tom the"],  # one family
            ["and Mary .", "of granite ."],  # both before a full stop
            ["to Mary went", "to Paris because"],  # both after "to"
            ["and was went", "of the ."],  # words of no family
        ],
    )
    def test_one_family_or_like_surroundings_are_one_meaning(self, contexts):
        assert self.judged(contexts) == {}

    def test_weak_tokens_do_not_count(self):
        assert self.judged(["and Mary went", "of granite ."], weaker=[1]) == {}

    def test_families_share_no_word(self):
        families = neurons.family_of_words()
        n_words = sum(len(neurons.WORD_CLASSES[name]) for names in neurons.FAMILIES.values() for name in names)
        assert (families >= 0).sum() == n_words
        assert families[token_id("Mary")] == families[token_id("baker")] != families[token_id("Paris")]


class TestCalendar:
    def polygon(self, n):
        angles = 2 * torch.pi * torch.arange(n) / n
        return (
            torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=1)[None] @ torch.linalg.qr(draws(0, 3, 3)).Q + 4
        )

    @pytest.mark.parametrize("n", [7, 12])
    def test_a_polygon_in_order_is_a_ring(self, n):
        found = calendar.ring(self.polygon(n), seed=0)
        assert found["share"] == pytest.approx(1, abs=1e-5) and found["in order"] == 1 and found["p"] < 0.01
        assert found["chance"] == pytest.approx(2 / (n - 1), abs=0.02)

    def test_a_polygon_in_another_order_is_none(self):
        found = calendar.ring(self.polygon(7)[:, [0, 2, 4, 6, 1, 3, 5]], seed=0)
        assert found["share"] == pytest.approx(0, abs=1e-5) and found["in order"] == 0 and found["p"] > 0.9

    def test_random_points_have_the_share_of_chance(self):
        share = calendar.wave_share(draws(0, 300, 7, 20))
        assert share.mean().item() == pytest.approx(1 / 3, abs=0.01)

    def test_the_share_is_that_of_the_fourier_transform(self):
        points = draws(0, 4, 12, 5)
        power = torch.fft.fft(points, dim=1).abs().square().sum(2)
        expected = (power[:, 1] + power[:, 11]) / power[:, 1:].sum(1)
        torch.testing.assert_close(calendar.wave_share(points), expected)

    @pytest.mark.parametrize("n", [7, 12])
    def test_averaging_over_sums_with_one_answer_makes_a_ring_of_random_points(self, n):
        points = draws(0, n, 50).repeat(2 * (n - 1), 1, 1)  # a point for each name to count from, and nothing else
        assert calendar.wave_share(points).mean() < 0.5
        assert calendar.wave_share(calendar.averaged_by_answer(points)).item() > 0.75

    def test_averages_are_over_the_sums_with_that_answer(self):
        n = 7
        start = torch.arange(n, dtype=torch.float)[None, :, None].expand(2 * (n - 1), n, 1)
        averaged = calendar.averaged_by_answer(start)
        assert averaged[0, 5, 0].item() == (4 + 3 + 2) / 3 and averaged[0, 1, 0].item() == pytest.approx(
            (0 + 6 + 5) / 3
        )

    @pytest.mark.parametrize(("unit", "names"), [("day", DAYS), ("month", MONTHS)])
    def test_points_are_the_ends_of_sums_in_order(self, unit, names):
        model = copying_model()
        points = calendar.places(model, unit)
        assert points["W_E"].shape == (1, len(names), 64) and points["layer 0"].shape[:2] == (
            2 * (len(names) - 1),
            len(names),
        )
        torch.testing.assert_close(points["W_E"][0, 2], model.W_E[token_id(names[2])])
        torch.testing.assert_close(points["W_U"][0, 3], model.W_U[:, token_id(names[3])])
        torch.testing.assert_close(points["layer 1"][3, 1], model.W_E[token_id("is")])


class TestShippedModel:
    def test_lenses(self, measure_again):
        found = measure_again("lenses")
        logit, tuned = found["logit lens KL"], found["tuned lens KL"]
        assert list(tuned) == ["embed", "layer 0", "layer 1", "layer 2"]
        for site in tuned:
            assert tuned[site]["high"] < logit[site]["low"], site
        for task in ("ioi", "facts", "dates"):
            ranks = found["answer rank"][task]
            assert ranks["layer 3"]["rank"]["high"] < ranks["embed"]["rank"]["low"], task
            assert ranks["layer 3"]["rank"]["value"] < found["answer rank, untrained"][task]["layer 3"]["rank"]["low"]

    def test_a_probe_knows_the_quotation_marks_and_its_control_does_not(self, measure_again):
        found = measure_again("quotes")
        best = max(found["probes"].values(), key=lambda probe: probe["logistic"]["value"])
        assert best["logistic"]["low"] > 0.94 and best["selectivity"]["low"] > 0.05
        assert found["probes"]["embed"]["logistic"]["value"] < 0.6 < found["probes"]["embed"]["control"]["value"]
        assert all(found["probes, untrained"][site]["high"] < 0.75 for site in found["probes, untrained"])

    def test_a_probe_is_nearly_always_right(self, measure_again):
        assert max(probe["logistic"]["value"] for probe in measure_again("quotes")["probes"].values()) > 0.97

    def test_the_tense_follows_the_quotation_marks(self, measure_again):
        found = measure_again("quotes")
        assert found["tense"]["inside"]["low"] > 2 and found["tense"]["outside"]["high"] < -2

    def test_an_intervention_turns_the_tense(self, measure_again):
        found = measure_again("quotes")
        random = found["random directions"]
        steered = found["interventions"][f"layer {random['layer']}"]["add 4"]
        assert steered["wrong tense"]["low"] > random["add 4"]["most wrong tense"]
        assert steered["inside"]["high"] < random["add 4"]["lowest inside"]
        assert steered["outside"]["low"] > random["add 4"]["highest outside"]

    @pytest.mark.slow
    def test_a_dictionary_recovers_the_loss_and_has_latents_with_names(self, measure_again):
        found = measure_again("dictionary")
        assert found["L0"]["value"] <= 16 and found["dead"] < 0.1 and found["loss recovered"]["low"] >= 0.95
        assert found["matched"] >= 5 and found["matched, shuffled"] == 0
        assert found["matched, untrained"] < found["matched"]

    def test_some_neurons_answer_to_unrelated_things(self, measure_again):
        found = measure_again("neurons")
        assert found["count"] >= 10 and len(found["examples"]) >= 10
        assert all(len(example["contexts"]) == 2 for example in found["examples"])

    def test_the_rings_are_judged_beside_chance(self, measure_again):
        found = measure_again("calendar")
        for unit, n in (("day", 7), ("month", 12)):
            for ring in found["rings"][unit].values():
                assert ring["chance"] == pytest.approx(2 / (n - 1), abs=0.03) and 0 < ring["p"] <= 1
            assert all(pair["untrained"] > 0.6 for pair in found["false rings"][unit].values())

    @pytest.mark.parametrize("name", ["lenses", "quotes", "calendar"])
    def test_the_card_says_what_is_measured(self, measure_again, measured, expect_agreement, name):
        expect_agreement(measure_again(name), measured[name])

    def test_the_card_counts_the_same_neurons(self, measure_again, measured):
        assert measure_again("neurons")["count"] == pytest.approx(measured["neurons"]["count"], abs=3)

    @pytest.mark.slow
    def test_the_card_has_the_dictionarys_quality(self, measure_again, measured):
        again, before = measure_again("dictionary"), measured["dictionary"]
        for name in ("loss recovered", "L0", "variance unexplained", "loss, mean"):
            assert again[name]["value"] == pytest.approx(before[name]["value"], rel=0.02, abs=0.01), name
        assert again["matched"] == pytest.approx(before["matched"], abs=2)


def test_names_of_the_world_are_one_token_each():
    assert len({token_id(name) for name in NAMES}) == len(NAMES)
