"""Checks for reading and writing dictionaries in the format of sae_lens."""

import json

import torch

from utils.course.checking import AnswerRaised, expect, expect_close, expect_raises, expect_shape

SIZES = ((5, 8), (3, 2), (1, 4))  # d_in, d_sae


def parameters(rng, architecture, d_in, d_sae, dtype=torch.float32):
    """Random parameters of one architecture, not all of them contiguous."""

    def draw(*shape):
        return torch.randn(*shape, generator=rng).to(dtype)

    biases = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(architecture, ("b_enc",))
    return {"W_enc": draw(d_sae, d_in).T, "W_dec": draw(d_sae, d_in), "b_dec": draw(d_in)} | {
        name: draw(d_sae).abs() if name == "threshold" else draw(d_sae) for name in biases
    }


def expect_keys(found, ours, what):
    named = str(sorted(map(str, found))) if isinstance(found, dict) else type(found).__name__
    expect(
        isinstance(found, dict) and set(found) == set(ours), f"The {what} has other keys than promised.",
        actual=(what, named), returned=named, expected=str(sorted(ours)),
    )  # fmt: skip


class TestExportToSaeLens:
    exercise = "export_to_sae_lens"

    def test_config(self, answer, reference, rng):
        "the configuration of all four architectures, which can be written as JSON"
        for architecture in ("standard", "topk", "jumprelu", "gated"):
            for d_in, d_sae in SIZES:
                given = parameters(rng, architecture, d_in, d_sae)
                more = {"k": 3} if architecture == "topk" else {}
                found, _ = answer(given, architecture, site="blocks.1.hook_resid_post", model_name="ours", **more)
                ours, _ = reference(given, architecture, site="blocks.1.hook_resid_post", model_name="ours", **more)
                expect_keys(found, ours, "configuration")
                try:
                    written = json.loads(json.dumps(found))
                except TypeError:
                    written = None
                expect(written is not None, "Your configuration can't be written as JSON.", actual="no JSON")
                for key, value in ours.items():
                    same = type(found[key]) is type(value) and found[key] == value
                    expect(
                        same, f"{key!r} is another than promised.", actual=("config", key),
                        returned=f"{key!r}: {found[key]!r}", expected=f"{key!r}: {value!r}",
                    )  # fmt: skip

    def test_weights(self, answer, reference, rng):
        "the weights under their names: float32, contiguous, without graph"
        for architecture in ("standard", "topk", "jumprelu", "gated"):
            given = parameters(rng, architecture, 4, 6, torch.float64)
            given["W_dec"].requires_grad_()
            more = {"k": 2} if architecture == "topk" else {}
            _, found = answer(given, architecture, site="a", model_name="b", **more)
            _, ours = reference(given, architecture, site="a", model_name="b", **more)
            expect_keys(found, ours, "weights")
            for name, value in ours.items():
                expect_shape(found[name], tuple(value.shape))
                expect(
                    found[name].dtype == torch.float32, f"{name!r} is not float32.", actual=("dtype", name),
                    returned=str(found[name].dtype),
                )  # fmt: skip
                expect(
                    found[name].is_contiguous(), f"{name!r} is not contiguous: safetensors refuses to save it.",
                    actual="not contiguous",
                )  # fmt: skip
                expect(not found[name].requires_grad, f"{name!r} carries a graph.", actual="graph")
                expect_close(found[name], value)

    def test_bad_input(self, answer, rng):
        "an unknown architecture, and a TopK dictionary without its k, are refused"
        given = parameters(rng, "standard", 3, 4)
        expect_raises(ValueError, answer, given, "transcoder", site="a", model_name="b")
        expect_raises(ValueError, answer, given, "topk", site="a", model_name="b")


class TestLoadPretrainedSae:
    exercise = "load_pretrained_sae"

    def test_values(self, answer, reference, rng):
        "all four architectures, with b_dec subtracted, not subtracted, and nothing said about it"
        for architecture in ("standard", "topk", "jumprelu", "gated", None):
            for habit in ({"apply_b_dec_to_input": True}, {"apply_b_dec_to_input": False}, {}):
                for d_in, d_sae in SIZES:
                    config = ({"architecture": architecture} if architecture else {}) | habit
                    config |= {"normalize_activations": "none", "k": 2}
                    given = parameters(rng, architecture or "standard", d_in, d_sae)
                    found, ours = answer(config, given), reference(config, given)
                    expect_keys(found, ours, "answer")
                    for name, value in ours.items():
                        expect_close(found[name], value, note=f"This is {name!r}.", atol=1e-5)

    def test_rescaled(self, answer, reference, rng):
        "TopK dictionaries whose pre-activations are multiplied by the decoder's lengths; with b_dec subtracted, too"
        for subtract in (False, True):
            for rescale in (True, False):
                config = {"architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": rescale}
                config |= {"apply_b_dec_to_input": subtract}
                given = parameters(rng, "topk", 5, 7)
                found, ours = answer(config, given), reference(config, given)
                for name, value in ours.items():
                    expect_close(found[name], value, note=f"This is {name!r}.", atol=1e-5)

    def test_rescaling_is_for_topk(self, answer, reference, rng):
        "the key for rescaling says something to TopK alone"
        for architecture in ("standard", "jumprelu", "gated", None):
            config = ({"architecture": architecture} if architecture else {}) | {"rescale_acts_by_decoder_norm": True}
            given = parameters(rng, architecture or "standard", 5, 7)
            found, ours = answer(config, given), reference(config, given)
            for name, value in ours.items():
                expect_close(found[name], value, note=f"This is {name!r}.", atol=1e-5)

    def test_latents_stay(self, answer, rng):
        "our encoder with the new parameters gives what theirs gives with the old ones"
        given = parameters(rng, "standard", 4, 9)
        x = torch.randn(6, 4, generator=rng)
        theirs = torch.relu((x - given["b_dec"]) @ given["W_enc"] + given["b_enc"])
        found = answer({"architecture": "standard"}, given)
        expect_close(torch.relu(x @ found["W_enc"] + found["b_enc"]), theirs, atol=1e-4)
        expect_close(found["b_dec"], given["b_dec"])

    def test_dtype(self, answer, reference, rng):
        "weights in half precision come back in float32"
        given = parameters(rng, "standard", 4, 6, torch.float16)
        found = answer({"apply_b_dec_to_input": False}, given)
        expect(
            all(value.dtype == torch.float32 for value in found.values()), "The parameters are not all float32.",
            actual="dtype", returned=str(sorted({str(value.dtype) for value in found.values()})),
        )  # fmt: skip

    def test_bad_input(self, answer, rng):
        "another architecture, and normalised activations, are refused"
        given = parameters(rng, "standard", 3, 4)
        expect_raises(ValueError, answer, {"architecture": "temporal"}, given)
        expect_raises(ValueError, answer, {"architecture": "standard", "normalize_activations": "layer_norm"}, given)

    def test_what_was_found(self, answer, rng):
        "the message of the refusal names the architecture, or the normalisation, that was found"
        given = parameters(rng, "standard", 3, 4)
        for found, config in (
            ("temporal", {"architecture": "temporal"}),
            ("layer_norm", {"architecture": "standard", "normalize_activations": "layer_norm"}),
        ):
            try:
                answer(config, given)
            except AnswerRaised as raised:
                said = str(raised.__cause__)
                expect(
                    found in said, f"Your message doesn't name what was found, {found!r}.", actual="not named",
                    returned=repr(said), expected=f"a message with {found!r} in it",
                )  # fmt: skip
