"""The files that the book's demos run agree with the networks that they were made of."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from utils.course import paths
from utils.data.prompts import documents
from utils.lenses.stream import logit_lens
from utils.models.course_model import load_course_model
from utils.models.digits_cnn import digits_data, load_digits_cnn

sys.path.insert(0, str(paths.ROOT / "docs/book"))
import export  # noqa: E402


def close(found, expected, relative=0.0):
    return np.allclose(found, expected.detach().numpy(), rtol=relative, atol=1e-4)


@pytest.fixture(scope="module")
def course_model(tmp_path_factory):
    """The exported course model: from tokens and what is added to streams, logits and patterns."""
    path = tmp_path_factory.mktemp("onnx") / "course-model.onnx"
    export.write_course_model(path)
    session = onnxruntime.InferenceSession(path)
    return lambda tokens, added: session.run(None, {"tokens": tokens.numpy(), "added": added.numpy()})


@pytest.mark.parametrize("batch, length", [(1, 1), (3, 20), (1, 96)])
def test_course_model_shows_what_the_original_computes(course_model, batch, length):
    model, tokens = load_course_model(), documents(batch, 4)[:, :length]
    logits, cache = model.run_with_cache(tokens)
    found = course_model(tokens, torch.zeros(batch, 5, length, 128))
    streams = torch.stack([cache["resid_pre", layer] for layer in range(4)] + [cache["resid_post", 3]], dim=1)
    assert close(found[0], streams, relative=1e-5)  # behind the last layer they go up to 400
    assert close(found[1], logit_lens(model, streams))
    assert close(found[1][:, -1], logits)
    assert close(found[2], torch.stack([cache["pattern", layer] for layer in range(4)], dim=1))


def test_what_is_added_goes_into_the_stream(course_model):
    model, tokens = load_course_model(), documents(2, 5)[:, :12]
    added = torch.randn(2, 5, 12, 128, generator=torch.Generator().manual_seed(0))
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(4)] + ["blocks.3.hook_resid_post"]

    def adds(place):
        return lambda resid, hook: resid + added[:, place]

    hooks = [(name, adds(place)) for place, name in enumerate(names)]
    assert close(course_model(tokens, added)[1][:, -1], model.run_with_hooks(tokens, fwd_hooks=hooks))


def test_digits_and_the_gradient(tmp_path):
    export.write_digits_cnn(tmp_path / "digits.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "digits.onnx")
    model, images = load_digits_cnn(), digits_data().test_images[:40]
    images[::8] = images[::8].round()  # as drawn with a pointer, where pixels next to each other are equal
    for target, first in enumerate(range(0, 40, 4)):
        some = images[first : first + 4].clone().requires_grad_()
        expected = model(some)
        gradient = torch.autograd.grad(expected[0, target], some)[0][:1]
        logits, found = session.run(None, {"images": some.detach().numpy(), "target": np.array([target])})
        assert close(logits, expected) and close(found, gradient)


def test_a_latent_is_described_by_what_it_does():
    sae, info = export.described_dictionary()
    assert len(info["latents"]) == len(sae.W_dec)
    city = info["latents"][info["chosen"]["city"]]
    assert {"Paris", "Lyon"} & set(city["raises"]) and city["largest"] > 0
