"""The dictionaries that ship with the course, trained by ``utils.sae.make_dictionary``."""

import math
from pathlib import Path

import torch

from utils.models.bundled import BUNDLED, CONFIG_FILE, ModelFileError, read_model
from utils.sae.topk import TopKSAE

DICTIONARIES = ("course-model", "smollm2-135m")


def dictionary_folder(name: str) -> Path:
    """Where a shipped dictionary's weights, measurements and card are."""
    return BUNDLED / f"sae-{name}"


def load_dictionary(name: str | Path) -> TopKSAE:
    """A trained dictionary. It takes activations as the model has them, not scaled, and rows of W_dec have length 1.

    - "course-model": of the course model's residual stream behind layer 2. ``utils.sae.make_dictionary`` makes the
      same with another seed ("course-model-seed-1"), or of random weights ("course-model-untrained").
    - "smollm2-135m": of the middle of SmolLM2-135M. It has not seen the first position of a text, nor the few others
      whose activations are many times longer than usual: leave those as they are.

    Args:
        name: One of these, or a folder that ``utils.sae.make_dictionary`` wrote.

    Returns:
        With weights in float32 and these attributes besides those of ``TopKSAE``: ``site``, the hook point that it
        reads, such as ``"blocks.2.hook_resid_post"``; ``model_name``, the name that ``load_model`` takes; and
        ``first_position``, the first position of a text that it was trained on; and ``longest``, the length up to which
        activations were (infinite for the course model).

    Raises:
        LookupError: If there is no such dictionary.
        utils.models.bundled.ModelFileError: If a file is missing or damaged; the message names it.
    """
    if name not in DICTIONARIES and not Path(name).is_dir():
        raise LookupError(f"There is no dictionary {str(name)!r}. There are {', '.join(DICTIONARIES)}.")
    folder = dictionary_folder(name) if name in DICTIONARIES else Path(name)
    config, state = read_model(folder)
    try:
        with torch.device("meta"):
            sae = TopKSAE(config["d_in"], config["d_sae"], config["k"])
        sae.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
        sae.site, sae.model_name, sae.first_position = config["site"], config["model"], config["first_position"]
        sae.longest = config.get("longest", math.inf)
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(
            f"{folder / CONFIG_FILE} does not describe a dictionary with the weights beside it: {reason}"
        ) from error
    return sae.requires_grad_(False)
