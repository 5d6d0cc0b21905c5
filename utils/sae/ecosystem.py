"""Dictionaries in the format of sae_lens, and what Neuronpedia says about a latent.

Neither reading nor writing needs sae_lens: a dictionary is a folder with ``cfg.json`` and ``sae_weights.safetensors``.
"""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utils.models.hub import first_line, hub_answers
from utils.sae.topk import topk_activation

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"


class SAEUnavailable(Exception):
    """A dictionary, or what is known of a latent, cannot be had here; the message says so in one sentence."""


def export_to_sae_lens(
    parameters: Mapping[str, Tensor], architecture: str, *, site: str, model_name: str, k: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A dictionary of the course in the format of sae_lens.

    Args:
        parameters: The dictionary's, by name. All have "W_enc" [d_in, d_sae], "W_dec" [d_sae, d_in] and "b_dec" [d_in].
            Standard and TopK dictionaries have "b_enc" [d_sae]; JumpReLU's have "b_enc" and "threshold"; gated ones
            have "b_gate", "b_mag" and "r_mag" in its place.
        architecture: "standard", "topk", "jumprelu" or "gated".
        site: The hook point that it reads.
        model_name: The model's name.
        k: How many latents a TopK dictionary keeps.

    Returns:
        config: A dict that can be written as JSON: "architecture"; "d_in" and "d_sae" (numbers); "dtype", "float32";
            "apply_b_dec_to_input", False, as our encoders don't subtract b_dec (where the key is missing sae_lens does
            so); "normalize_activations", "none"; "metadata", a dict with "model_name", "hook_name" and
            "sae_lens_version", "6.0.0" (without which an older format is assumed and the names are dropped). For "topk"
            also "k", and "rescale_acts_by_decoder_norm", False; other architectures have neither.
        weights: The parameters under their names, float32, contiguous and without graph (safetensors saves no others).

    Raises:
        ValueError: If the architecture is none of the four, or k is missing for "topk".

    Source: sae_lens 6, ``SAE.save_model``.
    """
    if architecture not in ("standard", "topk", "jumprelu", "gated"):
        raise ValueError(f"sae_lens knows no architecture {architecture!r} that we have")
    if architecture == "topk" and k is None:
        raise ValueError("a TopK dictionary needs its k")
    config = {
        "architecture": architecture,
        "d_in": parameters["W_enc"].shape[0],
        "d_sae": parameters["W_enc"].shape[1],
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {"model_name": model_name, "hook_name": site, "sae_lens_version": "6.0.0"},
    }
    if architecture == "topk":
        config |= {"k": k, "rescale_acts_by_decoder_norm": False}
    return config, {name: value.detach().float().contiguous() for name, value in parameters.items()}


def load_pretrained_sae(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was saved by sae_lens, as parameters of the course's form: no subtraction, no rescaling.

    Two habits of others are worked into the parameters, so that latents and reconstructions stay what they are:

    - "apply_b_dec_to_input" (True where the key is missing): their encoder reads x - b_dec. Then "b_enc" becomes
      b_enc - b_dec W_enc, and for "gated" so does "b_gate", and "b_mag" becomes b_mag - (b_dec W_enc) exp(r_mag).
    - "rescale_acts_by_decoder_norm" (False where missing; "topk" only): their latents are the pre-activations times the
      lengths of W_dec's rows, and their decoder uses rows of length 1. Then column i of W_enc and entry i of b_enc are
      multiplied by the length of W_dec[i], and W_dec[i] is divided by it.

    Args:
        config: As in ``cfg.json``. Where "architecture" is missing it is "standard".
        weights: Parameters by name, as ``export_to_sae_lens`` returns them.

    Returns:
        New parameters under the same names, float32.

    Raises:
        ValueError: If the architecture is none of "standard", "topk", "jumprelu" and "gated", or
            "normalize_activations" is there and something else than "none": these can't be worked in. The message names
            what was found.
    """
    architecture, normalised = config.get("architecture", "standard"), config.get("normalize_activations", "none")
    if architecture not in ("standard", "topk", "jumprelu", "gated"):
        raise ValueError(f"no dictionary of ours computes as {architecture!r} does")
    if normalised != "none":
        raise ValueError(f"activations are normalised as {normalised!r} before this dictionary reads them")
    ours = {name: value.float().clone() for name, value in weights.items()}
    if config.get("apply_b_dec_to_input", True):
        shift = ours["b_dec"] @ ours["W_enc"]
        if architecture == "gated":
            ours["b_gate"] = ours["b_gate"] - shift
            ours["b_mag"] = ours["b_mag"] - shift * ours["r_mag"].exp()
        else:
            ours["b_enc"] = ours["b_enc"] - shift
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm", False):
        length = ours["W_dec"].norm(dim=1)
        ours["W_enc"] = ours["W_enc"] * length
        ours["b_enc"] = ours["b_enc"] * length
        ours["W_dec"] = ours["W_dec"] / length[:, None]
    return ours


class ForeignSAE(nn.Module):
    """A dictionary from parameters in the course's form; called, it gives (reconstruction, latents).

    Args:
        architecture: "standard", "topk", "jumprelu" or "gated".
        parameters: As ``load_pretrained_sae`` returns them.
        k: Of a TopK dictionary.
        site: The hook point that it reads, if known.
    """

    def __init__(self, architecture: str, parameters: Mapping[str, Tensor], *, k: int | None = None, site: str = ""):
        super().__init__()
        self.architecture, self.k, self.site = architecture, k, site
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(value, requires_grad=False))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        pre = x @ self.W_enc
        if self.architecture == "gated":
            return (pre + self.b_gate > 0) * (pre * self.r_mag.exp() + self.b_mag).relu()
        pre = pre + self.b_enc
        if self.architecture == "topk":
            return topk_activation(pre, self.k)
        return pre.relu() * (pre > self.threshold) if self.architecture == "jumprelu" else pre.relu()

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        return z @ self.W_dec + self.b_dec

    def forward(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_in"], Float[Tensor, "*batch d_sae"]]:
        z = self.encode(x)
        return self.decode(z), z


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write what ``export_to_sae_lens`` returns as sae_lens's two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    save_file(dict(weights), folder / WEIGHTS_FILE)


def read_folder(folder: Path) -> ForeignSAE:
    """The dictionary in a folder with sae_lens's two files.

    Raises:
        FileNotFoundError: If one of them is missing.
        ValueError: If it is of a kind that ``load_pretrained_sae`` refuses.
    """
    config = json.loads((folder / CONFIG_FILE).read_text())
    parameters = load_pretrained_sae(config, load_file(folder / WEIGHTS_FILE))
    site = config.get("metadata", {}).get("hook_name") or config.get("hook_name", "")
    names = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold", "b_gate", "b_mag", "r_mag"}
    ours = {name: value for name, value in parameters.items() if name in names}
    return ForeignSAE(config.get("architecture", "standard"), ours, k=config.get("k"), site=site)


def fetch_sae(repo: str, folder: str) -> ForeignSAE:
    """A dictionary from the Hugging Face hub, or from its local cache.

    Args:
        repo: Name on the hub, such as "jbloom/GPT2-Small-SAEs-Reformatted".
        folder: The folder in it that holds the two files, such as "blocks.8.hook_resid_pre".

    Raises:
        SAEUnavailable: If it can't be had, with the reason in one sentence.
    """
    files = [f"{folder}/{name}" for name in (CONFIG_FILE, WEIGHTS_FILE)]
    try:
        paths = [Path(hf_hub_download(repo, file, local_files_only=True)) for file in files]
    except Exception:  # the hub's own, which have no ancestor in common
        if not hub_answers():
            raise SAEUnavailable(
                f"The dictionary {folder!r} of {repo!r} is not on this machine and the Hugging Face hub cannot be "
                "reached, so this part is left out."
            ) from None
        try:
            paths = [Path(hf_hub_download(repo, file)) for file in files]
        except Exception as error:
            raise SAEUnavailable(
                f"The dictionary {folder!r} of {repo!r} could not be downloaded: {first_line(error)}"
            ) from error
    return read_folder(paths[0].parent)


def neuronpedia_latent(
    model: str, source: str, latent: int, *, address: str = "https://www.neuronpedia.org", timeout: float = 3.0
) -> dict[str, Any]:
    """What Neuronpedia knows of a latent.

    The request runs in a thread of its own, because no timeout limits the look-up of an address.

    Args:
        model: Neuronpedia's name of the model, such as "gpt2-small".
        source: Its name of the dictionary, such as "8-res-jb".
        latent: Which latent.
        address: Where to ask.
        timeout: Seconds to wait in all.

    Returns:
        "page": the address of the latent's page; "explanations": what it is said to mean, a list of texts; "share": the
        share of tokens on which it is on; "words": the words that its direction raises most. None for what isn't there.

    Raises:
        SAEUnavailable: If there is no answer in time, or none that can be read; in one sentence.
    """
    page = f"{address}/{model}/{source}/{latent}"
    found: dict[str, Any] = {}

    def ask() -> None:
        try:
            request = urllib.request.Request(f"{address}/api/feature/{model}/{source}/{latent}")
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                found["answer"] = json.loads(reply.read())
        except urllib.error.HTTPError as error:
            found["error"] = f"it answers with status {error.code}"
        except (OSError, HTTPException) as error:
            found["error"] = first_line(error)
        except ValueError:
            found["error"] = "its answer can't be read"

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    answer = found.get("answer")
    if not isinstance(answer, dict):
        reason = found.get("error", f"there was no answer within {timeout:g} seconds")
        raise SAEUnavailable(f"Neuronpedia can't be asked about latent {latent} here: {reason}.")
    explanations = [entry.get("description", "") for entry in answer.get("explanations") or []]
    return {
        "page": page,
        "explanations": explanations,
        "share": answer.get("frac_nonzero"),
        "words": answer.get("pos_str"),
    }
