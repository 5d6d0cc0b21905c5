"""The models that ship with the course: one folder each, whose weights are checked byte for byte when they are read.

Only reading and writing import torch, so that listing models stays quick.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

BUNDLED = Path(__file__).parent / "weights"
WEIGHTS_FILE, CONFIG_FILE, MEASURED_FILE = "model.safetensors", "config.json", "measured.json"


class ModelFileError(Exception):
    """A file of a model is missing, cut short, changed or of another model; the message names the file."""


def write_model(folder: Path, config: dict, state: "dict[str, Tensor]") -> None:
    """Write weights and, beside them, ``config.json`` with the sizes, the number of bytes and the checksum.

    The weights are replaced in one step, so that an interrupted run leaves the old file whole.

    Args:
        folder: Where to; it is made if it does not exist.
        config: What a loader needs to build the model; numbers, strings, lists.
        state: Tensors by name.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: value.detach().contiguous().cpu() for name, value in state.items()})
    about = {"config": config, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _replace(folder / WEIGHTS_FILE, data)
    _replace(folder / CONFIG_FILE, (json.dumps(about, indent=1) + "\n").encode())


def read_model(folder: Path) -> "tuple[dict, dict[str, Tensor]]":
    """The config and the weights that ``write_model`` wrote.

    Raises:
        ModelFileError: If a file is missing or damaged. The message names it and says how to get it back.
    """
    from safetensors.torch import load

    about_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    try:
        about = json.loads(_bytes(about_path))
        config, n_bytes, checksum = about["config"], about["bytes"], about["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{about_path} is not a model's config: {error!r}. {_way_out(about_path)}") from None
    data = _bytes(weights_path)
    if len(data) != n_bytes:
        raise ModelFileError(
            f"{weights_path} has {len(data):,} bytes where {CONFIG_FILE} says {n_bytes:,}: it was cut short or "
            f"belongs to another model. {_way_out(weights_path)}"
        )
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ModelFileError(
            f"{weights_path} does not have the checksum in {CONFIG_FILE}: a byte was changed, or it belongs to "
            f"another model. {_way_out(weights_path)}"
        )
    try:
        return config, load(data)
    except SafetensorError as error:
        raise ModelFileError(f"{weights_path} is not a safetensors file: {error}. {_way_out(weights_path)}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}). {_way_out(path)}") from None


def _way_out(path: Path) -> str:
    if path.is_relative_to(BUNDLED):
        return f"`git checkout -- {path.name}` in its folder brings back the file that came with the course."
    return "Delete the folder and make the model again."


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)
