"""Files of pretrained models: from the local cache of the Hugging Face hub, or, if the hub answers, from there.

Nothing here imports torch, so that listing models stays quick.
"""

import contextlib
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from huggingface_hub import constants, snapshot_download, try_to_load_from_cache

from utils.models.bundled import CONFIG_FILE, WEIGHTS_FILE, ModelFileError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
# The hub moved GPT-2 and answers to both names; the cache keeps a model under the name that it was asked for by.
MOVED = {"gpt2": "openai-community/gpt2", "gpt2-medium": "openai-community/gpt2-medium"}
SECONDS_TO_ANSWER = 3.0


class ModelUnavailable(Exception):
    """Pretrained weights cannot be had here; the message says so in one sentence."""


def cached_folder(repo: str, *, text: bool = True) -> Path | None:
    """The folder of the local hub cache that holds this model's config, weights and tokenizer; None if there is none.

    Args:
        repo: Name on the hub, such as ``gpt2`` or ``EleutherAI/pythia-70m-deduped``.
        text: Whether the model reads text; one that reads images has no tokenizer.
    """
    for name in filter(None, (repo, MOVED.get(repo))):
        config, weights, *tokenizer = (
            isinstance(try_to_load_from_cache(name, file), str)
            for file in (CONFIG_FILE, WEIGHTS_FILE, "tokenizer.json", "vocab.json")
        )
        if config and weights and (any(tokenizer) or not text):
            return Path(try_to_load_from_cache(name, WEIGHTS_FILE)).parent
    return None


def pretrained_folder(repo: str, *, text: bool = True) -> Path:
    """The folder with a pretrained model's files: the cached one, or else a fresh download.

    Raises:
        ModelUnavailable: If the model is not cached and the hub does not answer within seconds or has no valid address,
            or the download fails.
    """
    folder = cached_folder(repo, text=text)
    if folder is None and not hub_answers():
        raise ModelUnavailable(
            f"The weights of {repo!r} are not on this machine and the Hugging Face hub cannot be reached, "
            "so this part is left out."
        )
    return folder or _download(repo)


def fetch(repo: str, *, text: bool = True) -> Path:
    """Get a model's config, weights and tokenizer into the local hub cache, with a progress bar on stderr.

    Raises:
        ModelUnavailable: If the hub does not answer within seconds or has no valid address, or the download fails.
    """
    folder = cached_folder(repo, text=text)
    if folder is None and not hub_answers():
        raise ModelUnavailable(f"{repo!r} cannot be fetched: {constants.ENDPOINT} does not answer.")
    return folder or _download(repo)


def _download(repo: str) -> Path:
    try:
        folder = Path(snapshot_download(repo, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES]))
    except Exception as error:  # the operating system's, the hub's, httpx's, xet's: they have no ancestor in common
        raise ModelUnavailable(f"The weights of {repo!r} could not be downloaded: {first_line(error)}") from error
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise ModelUnavailable(f"{repo!r} has no {file} on the hub, so it cannot be loaded.")
    return folder


def hub_answers() -> bool:
    """Whether the hub can be reached, decided within seconds; a download would try for a minute.

    The request runs in a thread of its own because no timeout limits the look-up of the hub's address.

    Raises:
        ModelUnavailable: If the hub's address, which the environment's HF_ENDPOINT may set, is no address.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    if not re.match(r"https?://[^/]", constants.ENDPOINT):
        raise ModelUnavailable(
            f"The address of the Hugging Face hub, HF_ENDPOINT, is {constants.ENDPOINT!r} here, but it has to begin "
            "with http:// or https://."
        )
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER).close()
        except (OSError, HTTPException, ValueError):  # no connection; no answer of a web server; no host or port
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    return answered.is_set()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what the libraries raise inside (tokenizers raises bare ``Exception``) into an error that names a path."""
    try:
        yield
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be loaded: {first_line(error)}. If it lies in the hub's cache, delete the model's "
            "folder there and get it again with `mi models --fetch`."
        ) from error
