"""What part 03b says about shares that are not needed, and needs that are no shares, measured again."""

import random

import pytest
import torch

from utils.data.corpus import IOI_OPENINGS
from utils.data.prompts import encode_prompts, giving_roles, ioi_prompts, unfamiliar_prompts
from utils.data.world import NAMES, PLACES, THINGS
from utils.lenses.attribution import direct_logit_attribution
from utils.lenses.stream import residual_components
from utils.models.course_model import load_course_model
from utils.models.phenomena.ioi import attention_to_people, mean_outputs, without
from utils.models.phenomena.measuring import end_logits, to_batch


@pytest.fixture(scope="module")
def model():
    return load_course_model()


@pytest.fixture(scope="module")
def gifts():
    return ioi_prompts(200, seed=0)


@pytest.fixture(scope="module")
def shares(model, gifts):
    batch = to_batch(gifts)
    rows, end = batch.rows(), batch.at["END"]
    parts = {name: value[rows, end] for name, value in residual_components(model, encode_prompts(gifts)).items()}
    return direct_logit_attribution(model, parts, batch.answers, batch.foils)


def test_in_every_gift_prompt_one_person_has_all_four_roles(gifts):
    for prompt in gifts:
        roles = giving_roles(prompt.text)
        assert roles.repeated == (roles.giver,) == (roles.last,) == (roles.first,) == (prompt.foil,)


def test_heads_of_layer_2_speak_for_a_place_and_their_mean_cancels(shares, gifts):
    receiver_first = torch.tensor([prompt.kind[0] == "ABBA" for prompt in gifts])
    for head, sign in (("2.0", -1), ("2.1", -1), ("2.2", 1), ("2.3", -1)):
        values = sign * shares[f"head {head}"]
        assert values[receiver_first].mean() > 1.5
        assert values[~receiver_first].mean() < -1.5
        assert abs(values.mean()) < 0.4


def test_a_head_is_missed_more_than_its_share_and_three_others_less(model, gifts, shares):
    batch = to_batch(gifts)
    rows, means = batch.rows(), mean_outputs(model, batch, seed=0)

    def run(heads):
        with torch.no_grad(), model.hooks(fwd_hooks=without(heads, batch, means)):
            logits = end_logits(model, batch)
        difference = logits[rows, batch.answers] - logits[rows, batch.foils]
        said = (logits.argmax(-1) == batch.answers).float().mean().item()
        return difference.mean().item(), (difference > 0).float().mean().item(), said

    whole = run([])[0]
    movers, upper = [(3, 1), (3, 2), (3, 3)], [(layer, head) for layer in (2, 3) for head in range(4)]
    share = {
        "1.3": shares["head 1.3"].mean().item(),
        "movers": sum(shares[f"head 3.{h}"] for h in (1, 2, 3)).mean().item(),
    }
    assert share["1.3"] == pytest.approx(share["movers"], rel=0.2)
    left, _, right = run([(1, 3)])
    assert whole - left == pytest.approx(8.8, abs=0.5)
    assert right == pytest.approx(0.54, abs=0.06)
    left, ahead, right = run(movers)
    assert whole - left == pytest.approx(1.69, abs=0.3)
    assert ahead > 0.99
    assert right > 0.98
    left, ahead, right = run(upper)
    assert left > 6.5
    assert ahead > 0.98
    assert right < 0.05


@torch.no_grad()
def people_looked_at(model, sentence, n=40, seed=41):
    """Mean attention of head 1.3 from the end to A, B, C and D; A and B are met in one of the ten openings."""
    rng, found = random.Random(seed), []
    for i in range(n):
        people, thing = rng.sample(NAMES, 4), rng.choice(THINGS)
        a, b, c, d = people
        met = IOI_OPENINGS[i % 10].format(a=a, b=b, place=rng.choice(PLACES))
        looks = attention_to_people(model, f"{met} {sentence.format(b=b, c=c, d=d, t=thing)}", 1, 3)
        found.append([looks.get(person, 0.0) for person in people])
    return dict(zip("ABCD", torch.tensor(found).mean(0).tolist(), strict=True))


@pytest.mark.parametrize(
    ("sentence", "who", "low", "high"),
    [
        ("{c} opened the door, and {b} gave a {t} to", "B", 0.85, 0.97),
        ("{c} opened the door, and in the morning {b} gave a {t} to", "B", 0.8, 0.96),
        ("{c} opened the door, and {d}'s {t} was handed by {b} to", "D", 0.7, 0.9),
        ("{c} opened the door, and gave {d}'s {t} to", "D", 0.6, 0.85),
        ("{c} opened the door and {b} gave a {t} to", "B", 0.58, 0.82),
        ("{c} opened the door, {b} gave a {t} to", "B", 0.58, 0.82),
        ("{c} opened the door. {b} gave a {t} to", "B", 0.58, 0.82),
        ("{c} opened the door because {b} gave a {t} to", "B", 0.35, 0.62),
        ("with {c}, {b} gave a {t} to", "B", 0.4, 0.7),
        ("{b}, who saw {c}, gave a {t} to", "B", 0.4, 0.66),
        ("{b} carried the hat from the park, and in the morning gave a {t} to", "B", 0.15, 0.45),
    ],
)
def test_whom_head_1_3_looks_at_when_several_people_do_something(model, sentence, who, low, high):
    """The first behind the opening is C in all but two, and the giver never the reason; shared where breaks compete."""
    looks = people_looked_at(model, sentence)
    assert low < looks[who] < high, looks
    assert looks["A"] < 0.03


def test_in_sentences_unlike_training_the_later_heads_choose_and_choose_badly(model):
    batch = to_batch(unfamiliar_prompts(20, seed=78))
    rows, means = batch.rows(), mean_outputs(model, batch, seed=0)
    later = [(layer, head) for layer in (2, 3) for head in range(4)]
    ahead, difference = {}, {}
    for name, heads in {"nothing": [], "later": later}.items():
        with torch.no_grad(), model.hooks(fwd_hooks=without(heads, batch, means)):
            logits = end_logits(model, batch)
        lead = logits[rows, batch.answers] - logits[rows, batch.foils]
        ahead[name], difference[name] = (lead > 0).float().mean().item(), lead.mean().item()
    assert 0.45 < ahead["nothing"] < 0.68
    assert ahead["later"] > 0.88
    assert difference["later"] == pytest.approx(5.2, abs=0.8)
    assert difference["later"] > difference["nothing"] + 2.5
    saw = torch.tensor([unit == "3" for unit in batch.units])
    assert lead[saw].mean() > 2.5  # without the later heads
    with torch.no_grad():
        logits = end_logits(model, batch)
    assert (logits[rows, batch.answers] - logits[rows, batch.foils])[saw].mean() < -9
