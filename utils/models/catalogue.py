"""The course's door to models: those that ship with it, those that `mi train` makes, and pretrained ones.

Reading the list imports no torch; loading imports what it needs.
"""

import importlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from utils.models import hub
from utils.models.bundled import BUNDLED, CONFIG_FILE, WEIGHTS_FILE, ModelFileError, read_model

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILE = "tokenizer.json"


class UnknownModel(LookupError):
    """No model of this name; the message says which there are."""


@dataclass(frozen=True)
class Shipped:
    """A model whose weights are in the repository, in a folder of its name.

    Attributes:
        about: What it is.
        loader: The function that loads a model that is no transformer; None for the transformers.
    """

    about: str
    loader: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """A model on the Hugging Face hub.

    Attributes:
        about: What it is.
        repo: Its name on the hub.
        parameters: How many; a tied embedding counts once.
        megabytes: Size of its weights file (10⁶ bytes): the parameters, and the buffers that it holds as well (causal
            masks, or the running means and variances of batch norms).
        loader: The function that loads a model that is no transformer; None for the transformers.
    """

    about: str
    repo: str
    parameters: int
    megabytes: int
    loader: str | None = None


@dataclass(frozen=True)
class Recipe:
    """What `mi train` runs: ``make(folder, seed=…)`` of ``module``.

    Attributes:
        module: Dotted name of the module.
        resumes: Whether a run that was stopped goes on from where it was.
    """

    module: str
    resumes: bool = False


@dataclass(frozen=True)
class Standing:
    """One line of the list of models.

    Attributes:
        name: What `load_model` takes.
        about: What it is.
        parameters: How many; None if that can't be read.
        size: Bytes on disk, or to download; None if neither is known.
        where: "shipped", "missing", "damaged", "in the local cache", "can be fetched" or "no network".
    """

    name: str
    about: str
    parameters: int | None
    size: int | None
    where: str


SHIPPED = {
    "course-model": Shipped("the course's own language model"),
    "modular-addition": Shipped("one layer that adds modulo a prime"),
    "digits-cnn": Shipped("a CNN that reads handwritten digits", "utils.models.digits_cnn.load_digits_cnn"),
}
PRETRAINED = {
    "gpt2": Pretrained("GPT-2 small", "gpt2", 124_439_808, 548),
    "gpt2-medium": Pretrained("GPT-2 medium", "gpt2-medium", 354_823_168, 1520),
    "pythia-70m-deduped": Pretrained("the smallest Pythia", "EleutherAI/pythia-70m-deduped", 70_426_624, 166),
    "resnet-18": Pretrained(
        "a CNN that names what is on photographs",
        "microsoft/resnet-18",
        11_689_512,
        47,
        "utils.models.image_classifier.load_image_classifier",
    ),
}
RECIPES = {
    "course-model": Recipe("utils.models.course_model_card", resumes=True),
    "digits-cnn": Recipe("utils.models.digits_cnn"),
    "modular-addition": Recipe("utils.models.modular_addition_card"),
    "size-variants": Recipe("utils.models.size_variants"),
}


def load_model(name: str | os.PathLike) -> "HookedTransformer":
    """A transformer of the course, or a pretrained one, ready for hooks; on the CPU.

    Shipped models keep their weights as they were trained. Pretrained ones are what
    ``HookedTransformer.from_pretrained`` gives: layer norms folded, weights centred.

    Args:
        name: A name from `mi models`, or a folder that `mi train` wrote (``"build/models/course-model"``).

    Raises:
        UnknownModel: If there is no such model.
        ModelFileError: If a file of the model is missing, damaged or of another model; the message names it.
        ModelUnavailable: If a pretrained model is neither in the local cache nor within reach.
    """
    if (known := SHIPPED.get(name) or PRETRAINED.get(name)) and known.loader:
        raise UnknownModel(f"{name!r} is no transformer; {known.loader}() loads it.")
    if name in SHIPPED:
        return _load_folder(BUNDLED / name)
    if name in PRETRAINED:
        repo = PRETRAINED[name].repo
        folder = hub.pretrained_folder(repo)  # first, so that a model that isn't to be had costs no imports
        from utils.models.hooked import hooked_pretrained

        return hooked_pretrained(repo, folder)
    if Path(name).is_dir():
        return _load_folder(Path(name))
    names = ", ".join([*SHIPPED, *PRETRAINED])
    raise UnknownModel(f"There is no model {str(name)!r}, and no such folder. There are {names}.")


def fetch_model(name: str) -> Path:
    """Get a pretrained model into the local cache, with a progress bar on stderr; the folder of its files.

    Raises:
        UnknownModel: If there is no pretrained model of this name.
        ModelUnavailable: If the hub cannot be reached, or the download fails.
    """
    if name not in PRETRAINED:
        raise UnknownModel(f"There is no pretrained model {name!r}. There are {', '.join(PRETRAINED)}.")
    return hub.fetch(PRETRAINED[name].repo, text=PRETRAINED[name].loader is None)


def train_model(name: str, folder: Path, seed: int = 0) -> None:
    """Run a model's training recipe; it writes weights, measurements and model card into ``folder``.

    Raises:
        UnknownModel: If there is no recipe of this name.
    """
    importlib.import_module(recipe(name).module).make(folder, seed=seed)


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        UnknownModel: If there is none; the message says which there are.
    """
    if name not in RECIPES:
        raise UnknownModel(f"There is no recipe for {name!r}. There are {', '.join(RECIPES)}.")
    return RECIPES[name]


def standings() -> list[Standing]:
    """Every model of the course: what it is, how large, and where. Takes seconds if the hub does not answer.

    Raises:
        ModelUnavailable: If the hub's address is no address.
    """
    folders = {name: hub.cached_folder(model.repo, text=model.loader is None) for name, model in PRETRAINED.items()}
    elsewhere = "can be fetched" if None in folders.values() and hub.hub_answers() else "no network"
    lines = [_shipped_standing(name) for name in SHIPPED]
    for name, folder in folders.items():
        model = PRETRAINED[name]
        size = _bytes(folder) if folder else model.megabytes * 10**6
        where = "in the local cache" if folder else elsewhere
        lines.append(Standing(name, model.about, model.parameters, size, where))
    return lines


def _load_folder(folder: Path) -> "HookedTransformer":
    from utils.models.config import TransformerConfig
    from utils.models.hooked import hooked_transformer

    config, state = read_model(folder)
    tokenizer = _load_tokenizer(folder) if (folder / TOKENIZER_FILE).exists() else None
    try:
        return hooked_transformer(TransformerConfig(**config), state, tokenizer)
    except (TypeError, RuntimeError) as error:
        path, reason = folder / CONFIG_FILE, hub.first_line(error)
        raise ModelFileError(f"{path} does not describe a transformer with the weights beside it: {reason}") from error


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import PreTrainedTokenizerFast

    path = folder / TOKENIZER_FILE
    try:  # with add_bos_token, transformer_lens takes the tokenizer as it is; without, it reads the folder again
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, add_bos_token=True)
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelFileError(f"{path} is not a tokenizer: {hub.first_line(error)}") from error
    if tokenizer.bos_token is None:
        raise ModelFileError(f"{path.with_name('tokenizer_config.json')} names no bos_token.")
    tokenizer.eos_token = tokenizer.eos_token or tokenizer.bos_token
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.bos_token  # transformer_lens pads every text
    return tokenizer


def _shipped_standing(name: str) -> Standing:
    folder, about = BUNDLED / name, SHIPPED[name].about
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
            parameters = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        return Standing(name, about, parameters, _bytes(folder), "shipped")
    except FileNotFoundError:
        return Standing(name, about, None, None, "missing")
    except (OSError, SafetensorError):
        return Standing(name, about, None, None, "damaged")


def _bytes(folder: Path) -> int:
    return (folder / WEIGHTS_FILE).stat().st_size
