"""What part 10a says of SmolLM2-135M, measured again on other sentences; figures are those of 4-bit weights."""

import torch

from utils.capstone.controls import refutation_test
from utils.capstone.number import english_sentences, tokens_of
from utils.patching.hooks import run_with_cache
from utils.probes.erasing import project_out
from utils.probes.fit import mass_mean_probe
from utils.sae.shipped import load_dictionary

SITES = {layer: f"blocks.{layer}.hook_resid_post" for layer in (15, 25, 27)}


def test_the_verb_goes_by_the_subject_and_the_latent_means_plural(smollm2):
    given = english_sentences(1, seed=5)
    tokens, end = tokens_of(smollm2, given.texts)
    rows = torch.arange(len(end))
    frames = [text.rsplit(" the ", 1)[0] for text in given.texts]
    short = [f.removesuffix(" next to") if f.endswith(" next to") else f.rsplit(" ", 1)[0] for f in frames]
    subject = torch.tensor([smollm2.to_tokens(text).shape[1] - 1 for text in short])
    many, one = (
        [smollm2.to_single_token(w) for w in ws] for ws in ((" are", " were", " have"), (" is", " was", " has"))
    )

    def verb(logits):
        at_end = logits[rows, end].log_softmax(-1)
        return at_end[:, many].logsumexp(1) - at_end[:, one].logsumexp(1)

    def effect(values, holds):
        names = given.templates.unique()
        return torch.stack([
            values[(given.templates == n) & holds].mean() - values[(given.templates == n) & ~holds].mean()
            for n in names
        ])  # fmt: skip

    with torch.no_grad():
        logits, cache = run_with_cache(smollm2, tokens, list(SITES.values()))
    usual = verb(logits)
    intact = effect(usual, given.subject).mean()
    effects, verdict = refutation_test(effect(usual, given.subject), {"last": effect(usual, given.last)})
    assert verdict != "refuted" and effects["named"][0] > 3 and abs(effects["last"][0]) < 0.5 * effects["named"][0]

    def left(layer, where):
        value = cache[SITES[layer]]
        x = value[rows, where]
        own = mass_mean_probe(x, given.subject).direction[None]
        changed = value.index_put((rows, where), project_out(x, own, about=x.mean(0)))
        return (effect(verb(smollm2(changed, start_at_layer=layer + 1)), given.subject).mean() / intact).item()

    assert left(25, subject) < 0.3 and left(27, subject) > 0.9
    assert left(25, end) > 0.7 and abs(left(27, end)) < 0.3
    assert left(25, end - 1) > 0.9
    large = load_dictionary("smollm2-135m")
    at_subject, at_last = (large(cache[large.site][rows, where])[1][:, 1726] for where in (subject, end))
    assert at_subject[given.subject].min() > at_subject[~given.subject].max()
    assert refutation_test(effect(at_subject, given.subject), {"last": effect(at_last, given.last)})[1] == "refuted"
