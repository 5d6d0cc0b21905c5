"""Checks for looking at latents: examples, levels, logit effects, the dashboard, scores against labels."""

from html.parser import HTMLParser

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.sae.dashboard import Card, Passage


def drawn_acts(rng, docs, pos, share=0.3):
    """Activations of which most are 0, and of the others many are equal."""
    strengths = torch.randint(1, 9, (docs, pos), generator=rng) / 4
    return strengths * (torch.rand(docs, pos, generator=rng) < share)


class TestMaxActivatingExamples:
    exercise = "max_activating_examples"

    def test_values(self, answer, reference, rng):
        "strongest first, ties by document and position, windows cut at the ends, at most so many of a document"
        for docs, pos, n, before, after, per in ((7, 11, 5, 3, 2, 2), (4, 30, 9, 1, 6, 3), (12, 5, 6, 0, 0, 1)):
            for _ in range(3):
                acts = drawn_acts(rng, docs, pos)
                options = {"before": before, "after": after, "per_document": per}
                expect_close(answer(acts, n, **options), reference(acts, n, **options))

    def test_one_document(self, answer, rng):
        "one document does not fill the list"
        acts = torch.rand(6, 20, generator=rng) * 0.5 + 0.1
        acts[3] += 1
        found = answer(acts, 4)
        expect(
            len({example[0] for example in found}) == 4,
            "Several of your examples are of one document, although per_document is 1.",
            actual="one document",
        )
        expect(len(answer(acts, 50, per_document=2)) == 12, "Two of each of six documents make twelve examples.")

    def test_off_is_no_example(self, answer, reference, rng):
        "where the latent is off there is no example, and there may be none at all"
        acts = torch.zeros(3, 8)
        expect_close(answer(acts, 4), [])
        acts[1, 2], acts[2, 7] = 0.5, 0.25
        expect_close(answer(acts, 4), reference(acts, 4))

    def test_default_window(self, answer, reference, rng):
        "eight words before and four behind, if nothing else is said"
        acts = drawn_acts(rng, 5, 40)
        expect_close(answer(acts, 4), reference(acts, 4))

    def test_size_one(self, answer, reference, rng):
        "a single word"
        expect_close(answer(torch.ones(1, 1), 3), reference(torch.ones(1, 1), 3))

    def test_bad_input(self, answer, rng):
        "no examples asked for, or none of a document"
        expect_raises(ValueError, answer, drawn_acts(rng, 3, 4), 0)
        expect_raises(ValueError, answer, drawn_acts(rng, 3, 4), 3, per_document=0)


class TestActivationLevels:
    exercise = "activation_levels"

    def test_values(self, answer, reference, rng):
        "levels of equal size, ties by place"
        for docs, pos, n_levels in ((5, 13, 4), (9, 6, 3), (3, 40, 7), (6, 8, 1)):
            for _ in range(3):
                acts = drawn_acts(rng, docs, pos)
                expect_close(answer(acts, n_levels), reference(acts, n_levels))

    def test_equal_sizes(self, answer, rng):
        "as many places in each level, to within one, however the activations are distributed"
        acts = torch.rand(9, 21, generator=rng).pow(6) * (torch.rand(9, 21, generator=rng) < 0.4)
        levels = answer(acts, 5)
        expect(
            bool(((levels == 0) == (acts == 0)).all()), "Level 0 is for the places where the latent is off, and for "
            "no others.", actual="zeros",
        )  # fmt: skip
        sizes = torch.bincount(levels.flatten(), minlength=6)[1:]
        expect(
            int(sizes.max() - sizes.min()) <= 1, "Your levels differ in size.", actual=sizes.tolist(),
            returned=f"places by level: {sizes.tolist()}",
        )  # fmt: skip

    def test_few(self, answer, reference, rng):
        "fewer places than levels, and none at all"
        expect_close(answer(torch.zeros(2, 5), 3), torch.zeros(2, 5, dtype=torch.long))
        acts = torch.zeros(2, 5)
        acts[0, 3], acts[1, 1] = 2.0, 0.5
        expect_close(answer(acts, 5), reference(acts, 5))
        expect_close(answer(torch.ones(1, 1), 2), reference(torch.ones(1, 1), 2))

    def test_bad_input(self, answer, rng):
        "no level"
        expect_raises(ValueError, answer, drawn_acts(rng, 2, 3), 0)


class TestExamplesByQuantile:
    exercise = "examples_by_quantile"

    def test_levels(self, answer, rng):
        "each level's places are of that level, strongest level first, none twice"
        from utils.sae.reading import activation_levels

        for docs, pos, n_levels, n in ((8, 15, 4, 3), (5, 40, 6, 5), (4, 9, 2, 50), (6, 20, 1, 4)):
            acts = drawn_acts(rng, docs, pos)
            levels = activation_levels(acts, n_levels)
            found = answer(acts, n_levels, n, rng)
            expect(len(found) == n_levels, "There should be one group for each level.", actual=len(found))
            for level, places in zip(range(n_levels, 0, -1), found, strict=True):
                size = int((levels == level).sum())
                expect_shape(places, (min(n, size), 2), "A group has another number of places.")
                own = levels[places[:, 0], places[:, 1]]
                expect(
                    bool((own == level).all()),
                    "The places of a group are not of its level.",
                    actual=("of level", level, sorted(set(own.tolist()))),
                    returned=f"levels {own.tolist()}",
                    expected=f"all of level {level}",
                )
                expect(len(places.unique(dim=0)) == len(places), "A place is drawn twice.", actual="twice")

    def test_at_random(self, answer, rng):
        "each place of a level is drawn equally often"
        acts = torch.zeros(6, 5)
        acts[torch.arange(6), torch.randint(5, (6,), generator=rng)] = torch.arange(1.0, 7)
        counts = torch.zeros(6)
        for _ in range(400):
            for places in answer(acts, 2, 1, rng):
                counts[places[:, 0]] += 1
        expect(
            bool((counts - 400 / 3).abs().max() < 52),  # 5.5 standard deviations
            "Some places of a level are drawn more often than others.",
            actual=("how often", (counts > 300).nonzero()[:, 0].tolist()),
            returned=f"of 400 draws, {counts.int().tolist()}",
            expected="about 133 each",
        )

    def test_seed(self, answer, rng):
        "the same seed draws the same, and the same generator anew"
        acts = drawn_acts(rng, 10, 60)
        one, two = (answer(acts, 3, 6, torch.Generator().manual_seed(4)) for _ in range(2))
        expect_close(list(one), list(two), note="Generators of one seed draw different places")
        generator = torch.Generator().manual_seed(4)
        first, second = answer(acts, 3, 6, generator), answer(acts, 3, 6, generator)
        expect(
            any(set(map(tuple, a.tolist())) != set(map(tuple, b.tolist())) for a, b in zip(first, second, strict=True)),
            "A second draw gives the same places: you don't use the generator.", actual="no draw",
        )  # fmt: skip

    def test_empty(self, answer, rng):
        "a latent that is never on"
        for places in answer(torch.zeros(3, 4), 2, 3, rng):
            expect_shape(places, (0, 2))


class TestLogitEffects:
    exercise = "logit_effects"

    def test_values(self, answer, reference, rng):
        "directions with a mean, weights away from one, an unembedding with a mean"
        for latent, d, vocab in ((3, 7, 11), (6, 4, 5), (1, 9, 2)):
            directions = torch.randn(latent, d, generator=rng) + 1
            weight = torch.rand(d, generator=rng) + 0.3
            W_U = torch.randn(d, vocab, generator=rng) + torch.randn(d, 1, generator=rng)
            expect_close(answer(directions, weight, W_U), reference(directions, weight, W_U))

    def test_what_a_network_does(self, answer, rng):
        "added to a stream, a direction moves the logits so, up to the division and a number for all words"
        d, vocab = 6, 9
        weight, W_U = torch.rand(d, generator=rng).double() + 0.5, torch.randn(d, vocab, generator=rng).double()
        x, direction = torch.randn(d, generator=rng).double(), torch.randn(1, d, generator=rng).double() + 2

        def logits(stream):
            return ((stream - stream.mean()) * weight) @ W_U

        moved = logits(x + direction[0]) - logits(x)
        expect_close(answer(direction, weight, W_U)[0], moved - moved.mean())


class Reader(HTMLParser):
    """The page as a list of (tag, attributes, text inside), in order of appearance."""

    def __init__(self, page):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in ("meta", "br", "hr", "img", "link", "input"):
            self._open.append(element)

    def handle_endtag(self, tag):
        if any(element[0] == tag for element in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        for element in self._open:
            element[2] += data


def drawn_cards(rng, n):
    words = ["dog", "<b>", "a & b", '"', "'s", "</p><script>x</script>", "Paris", "&amp;", "<"]

    def passage(k):
        chosen = [words[i] for i in torch.randint(len(words), (k,), generator=rng).tolist()]
        acts = (torch.rand(k, generator=rng) * 7 * (torch.rand(k, generator=rng) < 0.6)).tolist()
        return Passage(chosen, acts)

    cards = []
    for i in range(n):
        groups = {
            "strongest <": [Passage(["<b>", "&amp;"], [0.5, 0.0]), passage(4), passage(2)],
            f"level {i}": [passage(3)],
            "none": [],
        }
        counts = torch.randint(0, 30, (3 + i,), generator=rng).tolist()
        cards.append(Card(f"latent <{7 * i}>", f'"a" & <i>{i}</i>', f"on at {i} < 5 places", counts, groups))
    return cards


def seen(page):
    """What of the page the docstring promises, section by section."""
    reader = Reader(page)
    sections, current = [], None
    for tag, attributes, text in reader.elements:
        if tag == "section":
            current = [("id", attributes.get("id"))]
            sections.append(current)
        elif current is None:
            continue
        elif tag in ("h2", "h3"):
            current.append((tag, " ".join(text.split())))
        elif tag == "i":
            current.append(("count", attributes.get("title")))
        elif tag == "p" and attributes.get("class") == "facts":
            current.append(("facts", " ".join(text.split())))
        elif tag == "p" and attributes.get("class") == "passage":
            current.append(("passage", ""))
        elif tag == "span":
            style = (attributes.get("style") or "").replace(" ", "").rstrip(";")
            current.append(("word", text, attributes.get("title"), style))
    return sections


class TestFeatureDashboard:
    exercise = "feature_dashboard"

    def test_sections(self, answer, reference, rng):
        "a section for each card, with heading, facts, bars and passages in order"
        for n in (1, 3):
            cards = drawn_cards(rng, n)
            page = answer(cards, "A <title> & more")
            expect(isinstance(page, str), "The page is a text.", actual=type(page).__name__)
            expect_tags(page)
            found, wanted = seen(page), seen(reference(cards, "A <title> & more"))
            expect(
                len(found) == len(wanted),
                "There should be a section for each card.", actual=("sections", len(found) - len(wanted)),
                returned=f"{len(found)} sections", expected=f"{len(wanted)} sections",
            )  # fmt: skip
            for own, ours in zip(found, wanted, strict=True):
                for a, b in zip(own, ours, strict=False):
                    expect(
                        a == b, "Read from the page, a part of a section differs.", actual=(b[0], *a),
                        returned=str(a), expected=str(b),
                    )  # fmt: skip
                expect(
                    len(own) == len(ours), "A section has more or fewer parts than it should.",
                    actual=("parts", len(own) - len(ours)), returned=f"{len(own)} parts", expected=f"{len(ours)} parts",
                )  # fmt: skip

    def test_links(self, answer, rng):
        "the links lead to the sections"
        cards = drawn_cards(rng, 3)
        links = [(a.get("href"), text) for tag, a, text in Reader(answer(cards, "t")).elements if tag == "a"]
        expect_close(links, [(f"#latent-{i}", card.name) for i, card in enumerate(cards)])

    def test_never_on(self, answer, rng):
        "a card whose passages are all 0, and one without passages"
        cards = [
            Card("a", "b", "c", [0, 0], {"off": [Passage(["x", "y"], [0.0, 0.0])]}),
            Card("d", "e", "f", [], {}),
        ]
        words = [item for section in seen(answer(cards, "t")) for item in section if item[0] == "word"]
        expect_close(words, [("word", w, "0.00", "background:rgba(255,140,0,0.00)") for w in "xy"])

    def test_no_cards(self, answer, rng):
        "a page without latents"
        page = answer([], "empty")
        expect(page.startswith("<!doctype html>"), "A page begins with <!doctype html>.", actual=page[:15])
        expect_close(seen(page), [])


def expect_tags(page):
    """Expect no element on the page that the words of a card could have made, or that loads something."""
    tags = {tag for tag, _, _ in Reader(page).elements}
    expect(
        not tags & {"script", "b"},
        "A word or label of a card has become part of the page's markup: what is not escaped can do anything.",
        actual="not escaped",
        returned=f"elements {sorted(tags)}",
    )
    loaded = tags & {"link", "img", "iframe", "object"}
    expect(not loaded, "The page loads something from elsewhere.", actual=("loads", *sorted(loaded)))


class TestLatentLabelScores:
    exercise = "latent_label_scores"

    def test_values(self, answer, reference, rng):
        "several thresholds, activations on the threshold among them"
        for n, latent, threshold in ((40, 5, 0.0), (23, 3, 0.5), (60, 1, 1.25), (17, 8, 0.25)):
            z = drawn_acts(rng, n, latent, 0.6)
            labels = torch.rand(n, generator=rng) < 0.35
            labels[:2] = torch.tensor([True, False])
            expect_close(tuple(answer(z, labels, threshold)), tuple(reference(z, labels, threshold)))

    def test_default(self, answer, reference, rng):
        "on is above 0, if nothing else is said"
        z, labels = drawn_acts(rng, 30, 4, 0.5), torch.arange(30) % 3 == 0
        expect_close(tuple(answer(z, labels)), tuple(reference(z, labels)))

    def test_nothing(self, answer, rng):
        "a latent that is never on, and a label that nothing has: 0, and not NaN"
        z = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
        labels = torch.tensor([True, False, True])
        expect_close(tuple(answer(z, labels)), tuple(torch.tensor(v) for v in ([0, 0.5], [0, 0.5], [0, 0.5])))
        zero = torch.zeros(2)
        expect_close(tuple(answer(z, torch.zeros(3, dtype=torch.bool))), (zero, zero, zero))

    def test_names(self, answer, rng):
        "the three scores by name"
        scores = answer(torch.rand(9, 2, generator=rng), torch.arange(9) < 4, 0.5)
        for name in ("precision", "recall", "f1"):
            expect(hasattr(scores, name), f"The result has no {name}: it should be a LabelScores.", actual=name)
