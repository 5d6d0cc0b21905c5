"""What part 10b says of its project, and of the same with labels that mean nothing."""

import random

import pytest

from utils.capstone.case_10b import my_feature
from utils.capstone.protocol import audit_protocol, run_protocol
from utils.models.course_model import load_course_model


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


@pytest.fixture(scope="module")
def project(model):
    design = my_feature(model)
    return design | {"others": {"somebody else": design["others"]}}


def mean(values):
    return sum(values) / len(values)


def test_the_one_who_acts_decides_the_pronoun(model, project):
    record = run_protocol(model, project, seed=3)
    assert audit_protocol(record) == [] and record["verdict"] == "stands"
    assert record["chosen"] == 3 and mean(record["accuracy"]) > 0.75 and record["p_adjusted"][3] < 0.01
    assert max(map(mean, record["all_accuracy"][:3])) < 0.65 and min(record["p_adjusted"][:3]) > 0.05
    assert record["effect"]["low"] > 1 and record["effect"]["drop"] > 0.6 * mean(record["intact"])
    own, rival = (record["refutation"][name][0] for name in ("named", "somebody else"))
    assert own > 8 and 0 < rival < 0.3 * own


def test_labels_without_meaning_give_nothing(model, project):
    for seed in range(3):
        rng, shuffled = random.Random(seed), list(project["present"])
        for number in set(project["templates"]):
            at = [i for i, template in enumerate(project["templates"]) if template == number]
            for i, j in zip(at, rng.sample(at, len(at)), strict=True):
                shuffled[i] = project["present"][j]
        record = run_protocol(model, project | {"present": shuffled}, seed=seed)
        assert min(record["p_adjusted"]) > 0.01 and max(map(mean, record["all_accuracy"])) < 0.75
        assert abs(record["effect"]["effect"]) < 1.5
