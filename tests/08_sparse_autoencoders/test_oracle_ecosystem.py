"""Our dictionaries in sae_lens, those of sae_lens here, and Neuronpedia's answers from a server of our own."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from utils.sae.ecosystem import (
    SAEUnavailable,
    export_to_sae_lens,
    fetch_sae,
    neuronpedia_latent,
    read_folder,
    write_folder,
)
from utils.sae.topk import TopKSAE

NAMES = {"standard": "b_enc", "topk": "b_enc", "jumprelu": "b_enc threshold", "gated": "b_gate b_mag r_mag"}


def drawn(architecture, d_in=6, d_sae=15, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    biases = {n: draw(d_sae).abs() if n == "threshold" else 0.5 * draw(d_sae) for n in NAMES[architecture].split()}
    return {"W_enc": draw(d_sae, d_in).T, "W_dec": draw(d_sae, d_in), "b_dec": draw(d_in)} | biases


@pytest.mark.parametrize("architecture", NAMES)
def test_sae_lens_reads_ours(architecture, tmp_path):
    from sae_lens import SAE

    more = {"k": 4} if architecture == "topk" else {}
    config, weights = export_to_sae_lens(
        drawn(architecture), architecture, site="blocks.2.hook_resid_post", model_name="ours", **more
    )
    write_folder(tmp_path, config, weights)
    theirs, ours = SAE.load_from_disk(tmp_path), read_folder(tmp_path)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(x)[0], theirs(x), atol=1e-5, rtol=1e-5)
    assert theirs.cfg.metadata.hook_name == ours.site == "blocks.2.hook_resid_post"
    assert theirs.cfg.architecture() == architecture


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", NAMES)
def test_we_read_what_sae_lens_saved(architecture, subtract, tmp_path):
    from sae_lens import GatedSAE, JumpReLUSAE, StandardSAE
    from sae_lens import TopKSAE as TheirTopKSAE
    from sae_lens.saes.gated_sae import GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAEConfig

    kinds = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "topk": (TheirTopKSAE, TopKSAEConfig, {"k": 4, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
        "gated": (GatedSAE, GatedSAEConfig, {}),
    }
    made, configured, more = kinds[architecture]
    theirs = made(configured(d_in=6, d_sae=15, apply_b_dec_to_input=subtract, **more))
    with torch.no_grad():
        for name, value in drawn(architecture, seed=2).items():
            getattr(theirs, name).copy_(value)
    theirs.save_model(tmp_path)
    ours = read_folder(tmp_path)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours(x)[0], theirs(x), atol=2e-5, rtol=1e-5)


def test_a_course_dictionary_survives_the_round_trip(tmp_path):
    sae = TopKSAE(5, 12, 3, generator=torch.Generator().manual_seed(0))
    write_folder(
        tmp_path, *export_to_sae_lens(dict(sae.named_parameters()), "topk", site="a", model_name="b", k=sae.k)
    )  # fmt: skip
    x = torch.randn(9, 5)
    for ours, back in zip(sae(x), read_folder(tmp_path)(x), strict=True):
        torch.testing.assert_close(back, ours)


@pytest.fixture
def neuronpedia():
    """A server that answers as Neuronpedia does: latent 1 rightly, 2 with nonsense, 3 too late, others not at all."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            latent = int(self.path.rsplit("/", 1)[1])
            if latent == 3:
                time.sleep(2)
            self.send_response(200 if latent in (1, 2, 3) else 404)
            self.end_headers()
            known = {"explanations": [{"description": "weekdays"}], "frac_nonzero": 0.01, "pos_str": ["Monday"]}
            self.wfile.write(json.dumps(known).encode() if latent == 1 else b"<html>")

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_neuronpedia_answers(neuronpedia):
    found = neuronpedia_latent("gpt2-small", "8-res-jb", 1, address=neuronpedia)
    assert found["explanations"] == ["weekdays"] and found["share"] == 0.01 and found["words"] == ["Monday"]
    assert found["page"] == f"{neuronpedia}/gpt2-small/8-res-jb/1"


@pytest.mark.parametrize(
    ("latent", "reason"), [(2, "can't be read"), (3, "no answer within|timed out"), (4, "status 404")]
)
def test_one_sentence_where_neuronpedia_does_not(neuronpedia, latent, reason):
    begun = time.monotonic()
    with pytest.raises(SAEUnavailable, match=reason) as caught:
        neuronpedia_latent("gpt2-small", "8-res-jb", latent, address=neuronpedia, timeout=0.5)
    assert "\n" not in str(caught.value) and time.monotonic() - begun < 1.5


def test_nobody_there():
    with pytest.raises(SAEUnavailable, match="can't be asked"):
        neuronpedia_latent("gpt2-small", "8-res-jb", 1, address="http://127.0.0.1:9", timeout=1)


def test_one_sentence_where_the_hub_is_not_there(monkeypatch):
    monkeypatch.setattr("utils.sae.ecosystem.hub_answers", lambda: False)
    with pytest.raises(SAEUnavailable, match="cannot be reached, so this part is left out"):
        fetch_sae("nobody/nothing-of-this-name", "blocks.8.hook_resid_pre")
