"""What part 08c says of a dictionary of the course model, measured again on other documents."""

import random

import pytest
import torch
from torch.nn.functional import cosine_similarity

from utils.data.corpus import corpus
from utils.data.prompts import token_id
from utils.data.world import ANIMALS, CITIES, DAYS
from utils.models.course_model import load_course_model
from utils.models.phenomena.measuring import untrained
from utils.models.phenomena.quotes import balanced
from utils.probes.activations import collect_activations
from utils.probes.fit import mass_mean_probe
from utils.probes.labels import inside_quotes_labels
from utils.probes.quotes import QUOTE
from utils.sae.case_08c import is_it_what_it_says
from utils.sae.explain import applies, detection_score, explain_feature, simulation_score
from utils.sae.reading import activation_levels, latent_label_scores, logit_effects, max_activating_examples
from utils.sae.shipped import load_dictionary
from utils.sae.topk import TopKSAE, topk_objective
from utils.sae.training import from_table, train_sae

N_DOCS = 160


def ids(words):
    return torch.tensor([token_id(word) for word in words])


class Dictionary:
    """Latents of two sets of documents, and which are on often enough in both to be judged."""

    def __init__(self, sae, site, model, documents):
        self.sae, self.tokens = sae, documents
        self.x = [
            collect_activations(model, tokens, [site], torch.ones_like(tokens, dtype=torch.bool))[site]
            for tokens in documents
        ]

    def read(self, sae=None):
        self.sae = sae or self.sae
        self.z = [self.sae.encode(x) for x in self.x]
        often = [(z > 0).sum(0) >= 40 for z in self.z]
        self.latents = (often[0] & often[1]).nonzero()[:, 0].tolist()
        return self

    def of(self, latent, which=0):
        return self.z[which][:, latent].view(N_DOCS, -1)


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


@pytest.fixture(scope="module")
def documents():
    return [torch.as_tensor(corpus(N_DOCS, seed, share_repeated=0)).long() for seed in (811, 812)]


@pytest.fixture(scope="module")
def trained(model, documents):
    sae = load_dictionary("course-model")
    return Dictionary(sae, sae.site, model, documents).read()


@pytest.fixture(scope="module")
def noise(trained):
    made = TopKSAE(128, 1024, 16, generator=torch.Generator().manual_seed(3)).requires_grad_(False)
    made.b_enc -= trained.x[0].mean(0) @ made.W_enc
    other = Dictionary.__new__(Dictionary)
    other.x, other.tokens, other.sae = trained.x, trained.tokens, made
    return other.read()


@pytest.fixture(scope="module")
def blank(model, documents):
    read = Dictionary(None, "blocks.2.hook_resid_post", untrained(model, 0).requires_grad_(False), documents)
    sae = TopKSAE(128, 1024, 16, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        train_sae(sae, from_table(read.x[0], 512), topk_objective(), n_steps=250, lr=2e-3)
    return read.read(sae.requires_grad_(False))


def clean(dictionary, latents):
    """Latents whose ten strongest examples are one word."""
    found = {}
    for latent in latents:
        examples = max_activating_examples(dictionary.of(latent), 10)
        words = {dictionary.tokens[0][e.document, e.position].item() for e in examples}
        if len(examples) == 10 and len(words) == 1:
            found[latent] = words.pop()
    return found


def test_clean_lists_describe_the_strongest_quarter(trained, noise):
    chosen = random.Random(1).sample(trained.latents, 300)
    found = clean(trained, chosen)
    share = len(found) / len(chosen)
    assert 0.3 < share < 0.55
    chosen = random.Random(1).sample(noise.latents, 300)
    assert 0.05 < len(clean(noise, chosen)) / len(chosen) < 0.75 * share
    for which in (0, 1):
        tokens = trained.tokens[which]
        shares = torch.tensor([
            [(tokens[activation_levels(trained.of(latent, which), 4) == level] == word).float().mean().item()
             for level in (1, 2, 3, 4)]
            for latent, word in found.items()
        ]).mean(0)  # fmt: skip
        assert shares[0] < 0.3 and shares[3] > 0.65 and (shares.diff() > 0).all()
    tokens = trained.tokens[0]
    pure = {
        part: sum(
            (tokens[trained.of(latent) > part * trained.of(latent).max()] == word).float().mean().item() > 0.95
            for latent, word in found.items()
        )
        / len(found)
        for part in (0, 0.5)
    }
    assert pure[0] < 0.06 and pure[0.5] > 0.35


def test_direct_effects_hold_for_random_directions_as_well(model, trained):
    generator, agreement = torch.Generator().manual_seed(0), {"latents": [], "random": []}
    for latent in random.Random(2).sample(trained.latents, 12):
        acts = trained.of(latent)
        size, places = acts.max(), (acts > 0).nonzero()
        places = places[torch.randperm(len(places), generator=generator)[:6]]
        draw = torch.randn(128, generator=generator)
        for name, direction in (("latents", trained.sae.W_dec[latent]), ("random", draw / draw.norm())):
            rows, positions = torch.arange(len(places)), places[:, 1]

            def add(value, hook, direction=direction, rows=rows, positions=positions, size=size):
                value = value.clone()
                value[rows, positions] += size * direction
                return value

            texts = trained.tokens[0][places[:, 0]]
            before = model(texts)[rows, positions].log_softmax(-1)
            after = model.run_with_hooks(texts, fwd_hooks=[(trained.sae.site, add)])[rows, positions].log_softmax(-1)
            expected = logit_effects(direction[None], model.ln_final.w, model.W_U)[0]
            agreement[name].append(torch.corrcoef(torch.stack([expected, (after - before).mean(0)]))[0, 1].item())
    mean = {name: sum(values) / len(values) for name, values in agreement.items()}
    assert mean["latents"] > 0.65 and mean["random"] > 0.65 and mean["random"] > mean["latents"] - 0.1


def best_word(words, on):
    """The one word whose rule has the highest F1."""
    n = int(words.max()) + 1
    return (words[on].bincount(minlength=n) / (words.bincount(minlength=n) + on.sum())).argmax()


def scores(dictionary, n=150):
    """Means: detection of rules, one word and exchanged rules; simulation; precision; detection at the same words."""
    tokens, kept = dictionary.tokens
    states, states_kept = ({"inside quotation marks": inside_quotes_labels(t, QUOTE, QUOTE)} for t in dictionary.tokens)
    latents = random.Random(5).sample(dictionary.latents, n)
    rules = [explain_feature(tokens, dictionary.of(latent) > 0, states) for latent in latents]
    found = {"rule": [], "one word": [], "exchanged": [], "simulation": [], "precision": [], "same words": []}
    for i, latent in enumerate(latents):
        acts = dictionary.of(latent, 1)
        on = (acts > 0).flatten()
        says = applies(rules[i], kept, states_kept).flatten()
        found["rule"].append(detection_score(says, on))
        found["simulation"].append(simulation_score(says.float(), acts.flatten()))
        found["precision"].append(((says & on).sum() / says.sum().clamp(min=1)).item())
        found["one word"].append(
            detection_score(kept.flatten() == best_word(tokens.flatten(), dictionary.z[0][:, latent] > 0), on)
        )
        found["exchanged"].append(detection_score(applies(rules[i - 1], kept, states_kept).flatten(), on))
        evenly = balanced(kept, acts > 0, seed=i).flatten()
        if (on & evenly).sum() >= 10:
            found["same words"].append(detection_score(says[evenly], on[evenly]))
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_most_of_the_detection_score_comes_with_random_directions(trained, noise, blank):
    table = {name: scores(d) for name, d in (("trained", trained), ("noise", noise), ("blank", blank))}
    for found in table.values():
        assert abs(found["exchanged"] - 0.5) < 0.03
        assert found["rule"] > 0.56 and found["one word"] < found["rule"]
    assert 0.55 < (table["noise"]["rule"] - 0.5) / (table["trained"]["rule"] - 0.5) < 1.1
    assert table["trained"]["precision"] > table["noise"]["precision"] + 0.08
    assert table["trained"]["rule"] > table["blank"]["rule"] + 0.02
    assert table["blank"]["same words"] < 0.54 < table["trained"]["same words"]
    assert table["trained"]["simulation"] > max(table["noise"]["simulation"], table["blank"]["simulation"]) + 0.02


def test_random_directions_score_because_activations_hold_the_word(trained, noise):
    word = trained.tokens[0].flatten()
    sums = torch.zeros(int(word.max()) + 1, 128).index_add_(0, word, trained.x[0])
    means = sums / torch.bincount(word).clamp(min=1)[:, None]
    rest = Dictionary.__new__(Dictionary)
    rest.tokens = trained.tokens
    rest.x = [x - means[t.flatten().clamp(max=len(means) - 1)] for x, t in zip(trained.x, trained.tokens, strict=True)]
    made = TopKSAE(128, 1024, 16, generator=torch.Generator().manual_seed(3)).requires_grad_(False)
    made.b_enc -= rest.x[0].mean(0) @ made.W_enc
    assert scores(rest.read(made), n=60)["rule"] < scores(noise, n=60)["rule"] - 0.03


def test_planted_features_score_one(documents):
    tokens, kept = documents
    states, states_kept = ({"inside quotation marks": inside_quotes_labels(t, QUOTE, QUOTE)} for t in documents)

    def rules(t, quoted):
        before = torch.cat([t[:, :1], t[:, :-1]], 1)
        return [torch.isin(t, ids(DAYS)), before == token_id("the"), quoted, quoted & (t == token_id("the"))]

    for planted, planted_kept in zip(rules(tokens, *states.values()), rules(kept, *states_kept.values()), strict=True):
        rule = explain_feature(tokens, planted, states)
        says = applies(rule, kept, states_kept)
        assert detection_score(says.flatten(), planted_kept.flatten()) > 0.98


def best_f1(dictionary, labels, labels_kept):
    largest = dictionary.z[0].max(0).values.clamp(min=1e-9)
    options = [(s, latent_label_scores(dictionary.z[0] / largest, labels, s)) for s in (0.0, 0.1, 0.2, 0.4, 0.6)]
    share, found = max(options, key=lambda option: option[1].f1.max().item())
    latent = found.f1.argmax().item()
    threshold = share * largest[latent].item()
    return latent, threshold, latent_label_scores(dictionary.z[1][:, [latent]], labels_kept, threshold).f1.item()


def test_cities_have_a_latent_and_quotations_have_none(trained, noise, blank, documents):
    quotes = [inside_quotes_labels(t, QUOTE, QUOTE).flatten() for t in documents]
    cities = [torch.isin(t, ids(CITIES)).flatten() for t in documents]
    assert best_f1(trained, *quotes)[2] < 0.48
    assert best_f1(noise, *quotes)[2] > best_f1(trained, *quotes)[2] - 0.12
    own = best_f1(trained, *cities)[2]
    assert own > 0.38 and own > 1.5 * max(best_f1(noise, *cities)[2], best_f1(blank, *cities)[2])
    several = latent_label_scores(trained.z[0], quotes[0]).f1.topk(10).indices
    together = (trained.z[1][:, several] > 0).any(1).float()[:, None]
    assert latent_label_scores(together, quotes[1]).recall.item() > 0.75


def test_by_direction_weekdays_and_plurals_have_a_latent(trained, documents):
    plurals = ids([animal + ("es" if animal.endswith("x") else "s") for animal in ANIMALS])
    labels = {"weekday": torch.isin(documents[0], ids(DAYS)), "plural": torch.isin(documents[0], plurals)}
    labels["city"] = torch.isin(documents[0], ids(CITIES))
    labels["quoted"] = inside_quotes_labels(documents[0], QUOTE, QUOTE)

    def nearest(table):
        direction = mass_mean_probe(trained.x[0], table.flatten()).direction
        return cosine_similarity(trained.sae.W_dec, direction[None]).max().item()

    lead = {name: nearest(t) - max(nearest(t.roll(k, 0)) for k in range(1, 21)) for name, t in labels.items()}
    assert lead["weekday"] > 0.05 and lead["plural"] > 0.15
    assert lead["city"] < lead["plural"] and lead["quoted"] < lead["plural"]


def test_the_latent_for_cities_is_too_narrow(model, trained, documents):
    from utils.data.corpus import encode

    cities = [torch.isin(t, ids(CITIES)).flatten() for t in documents]
    latent, threshold, _ = best_f1(trained, *cities)

    def acts(texts):
        rows = [[0, *encode(text)] for text in texts]
        tokens = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
        last = torch.zeros_like(tokens, dtype=torch.bool)
        last[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])] = True
        x = collect_activations(model, tokens, [trained.sae.site], last)[trained.sae.site]
        return (trained.sae.encode(x)[:, latent] - threshold).relu()

    design = is_it_what_it_says(acts)
    assert design["false_negatives"][0] > 0.2 and design["false_positives"][0] < 0.05
    behind = [
        f"{who} {end}" for who in ("Anna", "Mary", "Tom") for end in ("worked in", "lives near", "likes", "went to")
    ]
    off = [(acts([f"{text} {city}" for city in CITIES]) <= 0).float().mean().item() for text in behind]
    assert sum(off) / len(off) > 0.6  # another choice of beginnings, another share
