"""What part 03b says about shares that are not needed, and needs that are no shares, measured again."""

import pytest
import torch

from utils.data.prompts import encode_prompts, giving_roles, ioi_prompts
from utils.lenses.attribution import direct_logit_attribution
from utils.lenses.stream import residual_components
from utils.models.course_model import load_course_model
from utils.models.phenomena.ioi import mean_outputs, without
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
