"""What 04b says about SmolLM2-135M, with other pairs of landmarks than the notebook's."""

import pytest
import torch

from utils.models.phenomena.measuring import ratio
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.metrics import logit_difference
from utils.patching.sites import patch_site

TOLD_BY_THE_FIRST = {
    "British Museum": "London", "Egyptian Museum": "Cairo", "Vatican Museum": "Rome", "Willis Tower": "Chicago",
    "White House": "Washington", "Times Square": "New", "Globe Theatre": "London", "Tokyo Tower": "Tokyo",
}  # fmt: skip
TOLD_BY_THE_LAST = {
    "Kremlin": "Moscow", "Acropolis": "Athens", "Pantheon": "Rome", "Louvre": "Paris", "Big Ben": "London",
    "Taj Mahal": "Ag", "Mount Zion": "Jerusalem", "Bosphorus": "Istanbul",
}  # fmt: skip
TOLD_BY_THE_SECOND_OF_THREE = {
    "Eiffel Tower": "Paris", "Brandenburg Gate": "Berlin", "Sistine Chapel": "Rome", "Van Gogh Museum": "Amsterdam",
}  # fmt: skip
THREE_PIECES = {"Colosseum": "Rome", "Reichstag": "Berlin", "Parthenon": "Athens"}
BEHIND = ("hook_attn_out", "hook_mlp_out")


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


class Exchanged:
    """Landmarks' sentences, each with another's name in its place, and what a patch brings back of it."""

    def __init__(self, model, names, shift=3):
        self.model, self.names = model, list(names)
        self.tokens = model.to_tokens([f"The {name} is located in the city of" for name in names])
        self.answers = torch.tensor([model.to_single_token(f" {city}") for city in names.values()])
        self.others, self.foils = self.tokens.roll(shift, 0), self.answers.roll(shift)
        self.end = self.tokens.shape[1] - 1
        assert (self.answers != self.foils).all()
        self.without = self.measured(model(self.others))
        names = [f"blocks.{layer}.hook_resid_post" for layer in (6, 12, 22, 23)]
        names += [f"blocks.{layer}.{part}" for part in BEHIND for layer in range(20, 25)]
        logits, self.cache = run_with_cache(model, self.tokens, names)
        self.way = self.measured(logits) - self.without

    def measured(self, logits):
        return logit_difference(logits, self.answers, self.foils, torch.full((len(self.names),), self.end))

    def stream(self, layer, position):
        name = f"blocks.{layer}.hook_resid_post"
        at = torch.full((len(self.names),), position)
        return self.measured(patch_site(self.model, self.others, name, self.cache[name], positions=at)) - self.without

    def at_the_end(self, part):
        """What one kind of output of layers 20 to 24 brings back there."""
        names = [f"blocks.{layer}.{part}" for layer in range(20, 25)]

        def restoring(name):
            return name, lambda x: torch.cat([x[:, : self.end], self.cache[name][:, self.end :]], dim=1)

        return self.measured(run_with_hooks(self.model, self.others, [restoring(n) for n in names])) - self.without

    def share(self, gain):
        return ratio(gain, self.way)


@pytest.fixture(scope="module")
def by_the_first(smollm2):
    return Exchanged(smollm2, TOLD_BY_THE_FIRST)


@pytest.fixture(scope="module")
def by_the_last(smollm2):
    return Exchanged(smollm2, TOLD_BY_THE_LAST)


def test_the_site_is_the_token_that_tells(by_the_first, by_the_last):
    first, other = (by_the_first.share(by_the_first.stream(12, place)) for place in (2, 3))
    assert first["value"] == pytest.approx(0.73, abs=0.1) and first["low"] > other["high"]
    other, last = (by_the_last.share(by_the_last.stream(12, place)) for place in (2, 3))
    assert last["value"] == pytest.approx(0.9, abs=0.07) and last["low"] > other["high"] + 0.3
    shares = by_the_last.stream(12, 3) / by_the_last.way
    words = [by_the_last.names.index(name) for name in ("Big Ben", "Taj Mahal", "Mount Zion")]
    assert (shares[words] > 0.75).all()


def test_the_end_takes_over_behind_layer_23_by_attention(by_the_first, by_the_last):
    for group, place in ((by_the_first, 2), (by_the_last, 3)):
        assert group.share(group.stream(22, place))["value"] > 0.55
        assert group.share(group.stream(23, place))["value"] < 0.1
        assert group.share(group.stream(22, group.end))["value"] < 0.2
        assert group.share(group.stream(23, group.end))["value"] > 0.7
        attention, mlps = (group.share(group.at_the_end(part)) for part in BEHIND)
        assert attention["value"] == pytest.approx(0.8, abs=0.08) and mlps["value"] == pytest.approx(0.2, abs=0.1)


def test_the_eiffel_tower_is_iffel_and_some_words_have_no_such_piece(smollm2):
    three = Exchanged(smollm2, TOLD_BY_THE_SECOND_OF_THREE, shift=1)
    assert smollm2.to_str_tokens(three.tokens[0])[2:5] == [" E", "iffel", " Tower"]
    shares = torch.stack([three.stream(6, place) / three.way for place in (2, 3, 4)])
    assert (shares.argmax(0) == 1).all() and shares[1, 0] > 0.6 and shares[2, 0].abs() < 0.25
    pair = Exchanged(smollm2, dict(list(TOLD_BY_THE_SECOND_OF_THREE.items())[:2]), shift=1)
    pieces = [(pair.stream(6, place) / pair.way)[0].item() for place in (2, 3, 4)]
    assert pieces == pytest.approx([0.06, 0.9, 0.03], abs=0.1)
    whole = Exchanged(smollm2, THREE_PIECES, shift=1)
    shares = torch.stack([whole.stream(12, place) / whole.way for place in (2, 3, 4)])
    assert shares.max() < 0.65 and shares.mean(1).max() < 0.5
