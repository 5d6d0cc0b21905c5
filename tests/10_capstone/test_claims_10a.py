"""What part 10a says of the subject's number, measured again on other sentences."""

import pytest
import torch

from utils.capstone.controls import refutation_test
from utils.capstone.latents import match_latents
from utils.capstone.many import holm, sign_flip_test
from utils.capstone.number import number_sentences, tokens_of
from utils.data.prompts import token_id
from utils.models.course_model import load_course_model
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.erasing import ablate_direction
from utils.probes.evaluate import probe_by_layer
from utils.probes.fit import logistic_probe, mass_mean_probe
from utils.sae.clamp import clamp_feature
from utils.sae.shipped import load_dictionary

SITES = ("hook_embed", "blocks.2.hook_resid_post", "blocks.3.hook_resid_mid", "blocks.3.hook_resid_post")


class Measured:
    """Crossed sentences, and what the model holds and says of them."""

    def __init__(self, seed):
        self.model = load_course_model().requires_grad_(False)
        self.given = number_sentences(3, seed)
        self.tokens, self.end = tokens_of(self.model, self.given.texts)
        self.rows = torch.arange(len(self.end))
        with torch.no_grad():
            logits, self.cache = run_with_cache(self.model, self.tokens, SITES)
        self.usual = self.lead(logits)

    def lead(self, logits):
        at_end = logits[self.rows, self.end]
        return at_end[:, token_id("are")] - at_end[:, token_id("is")]

    def effect(self, values, of="subject"):
        holds = getattr(self.given, of)
        names = self.given.templates.unique()
        return torch.stack([
            values[(self.given.templates == n) & holds].mean() - values[(self.given.templates == n) & ~holds].mean()
            for n in names
        ])  # fmt: skip

    def at(self, site, back):
        return self.cache[site][self.rows, self.end - back]

    def without(self, site, back):
        """What is left of the subject's and of the last noun's effect."""
        x = self.at(site, back)
        own = mass_mean_probe(x, self.given.subject).direction[None]
        with torch.no_grad():
            after = self.lead(
                ablate_direction(self.model, self.tokens, [site], own, about=x.mean(0), positions=self.end - back)
            )
        return self.effect(after).mean().item(), self.effect(after, "last").mean().item()


@pytest.fixture(scope="module", params=[11, 12])
def measured(request):
    return Measured(request.param)


def accuracy(measured, site, back):
    return probe_by_layer(
        {"x": measured.at(site, back)}, measured.given.subject, measured.given.templates, logistic_probe
    )["x"]


def test_as_read_the_last_word_says_it_all():
    given = number_sentences(3, 11, as_read=True)
    model = load_course_model().requires_grad_(False)
    tokens, end = tokens_of(model, given.texts)
    logits, cache = run_with_cache(model, tokens, SITES)
    at_end = logits[torch.arange(len(end)), end]
    assert ((at_end[:, token_id("are")] > at_end[:, token_id("is")]) == given.subject).float().mean() > 0.98
    for site in ("hook_embed", "blocks.3.hook_resid_post"):
        x = cache[site][torch.arange(len(end)), end]
        assert probe_by_layer({"x": x}, given.subject, given.templates, logistic_probe)["x"].mean() > 0.97


def test_crossed_the_probe_beats_the_word(measured):
    probe, word = accuracy(measured, "blocks.3.hook_resid_mid", 0), accuracy(measured, "hook_embed", 0)
    assert probe.mean() > 0.95 and 0.35 < word.mean() < 0.65
    assert holm(sign_flip_test((probe - word)[None]).repeat(28))[0].all()


def test_readable_at_the_article_and_not_used_there(measured):
    assert accuracy(measured, "blocks.3.hook_resid_mid", 1).mean() > 0.95
    assert accuracy(measured, "blocks.2.hook_resid_post", 1).mean() > 0.85
    intact = measured.effect(measured.usual).mean().item()
    assert intact > 3
    for site in ("blocks.2.hook_resid_post", "blocks.3.hook_resid_mid"):
        assert measured.without(site, 1)[0] > 0.9 * intact


def test_used_at_the_subject_and_then_at_the_last_noun(measured):
    intact = measured.effect(measured.usual).mean().item()
    last = measured.effect(measured.usual, "last").mean().item()
    assert measured.without("blocks.2.hook_resid_post", 3)[0] < 0.25 * intact
    assert measured.without("blocks.2.hook_resid_post", 0)[0] > 0.9 * intact
    left, spared = measured.without("blocks.3.hook_resid_mid", 0)
    assert abs(left) < 0.2 * intact and spared < 0.85 * last


def test_the_verb_goes_by_the_last_noun(measured):
    effects, verdict = refutation_test(
        measured.effect(measured.usual), {"last": measured.effect(measured.usual, "last")}
    )
    assert verdict == "refuted" and effects["last"][0] < -2 * effects["named"][0]


def test_a_latent_means_plural_and_not_subject(measured):
    sae = load_dictionary("course-model")
    x = measured.at(sae.site, 3)
    z = sae(x)[1]
    direction = mass_mean_probe(x, measured.given.subject).direction
    found = match_latents(
        z, measured.given.subject, measured.given.templates, sae.W_dec, direction, 30, torch.Generator().manual_seed(0)
    )
    best = found["by_data"]
    assert best == found["by_cosine"] and found["auroc"][best] > 0.98 and found["p_data"] < 0.05
    elsewhere = sae(measured.at(sae.site, 0))[1][:, best]
    assert refutation_test(measured.effect(z[:, best]), {"last": measured.effect(elsewhere, "last")})[1] == "refuted"
    where = torch.zeros_like(measured.tokens, dtype=torch.bool)
    where[measured.rows, measured.end - 3] = True
    logits = run_with_hooks(
        measured.model, measured.tokens, [(sae.site, clamp_feature(sae, best, 0.0, positions=where))]
    )
    assert 0.3 < measured.effect(measured.lead(logits)).mean() / measured.effect(measured.usual).mean() < 0.85
