"""`mi models` and `mi train`: what models there are, how to get them, how they were made."""

import os
import sys
from pathlib import Path

from utils.course import paths
from utils.models import catalogue
from utils.models.bundled import BUNDLED
from utils.models.hub import ModelUnavailable

INTERRUPTED = 130  # what a shell reports of a command that was stopped with Ctrl-C


def models(fetch: str | None) -> int:
    """List the models, or fetch the one of this name; returns the exit status."""
    try:
        print(f"{fetch} is in {catalogue.fetch_model(fetch)}" if fetch else _table(catalogue.standings()))
    except catalogue.UnknownModel as error:
        return _say(error, 2)
    except ModelUnavailable as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return _say("Stopped. The same command goes on from where it was.", INTERRUPTED)
    return 0


def train(name: str, seed: int, ship: bool) -> int:
    """Run a training recipe, into ``build/models`` unless the result is to ship; returns the exit status."""
    folder = (BUNDLED if ship else paths.ROOT / "build" / "models") / name
    try:
        catalogue.train_model(name, folder, seed)
    except catalogue.UnknownModel as error:
        return _say(error, 2)
    except OSError as error:
        return _say(f"{name} could not be written: {error}", 1)
    except KeyboardInterrupt:
        then = "goes on from where it was" if catalogue.recipe(name).resumes else "starts again"
        return _say(f"Stopped. `mi train {name}` {then}.", INTERRUPTED)
    print(f"{name} is in {_from_here(folder)}")
    return 0


def _table(standings: list[catalogue.Standing]) -> str:
    rows = [("name", "what it is", "parameters", "size", "where")]
    for model in standings:
        parameters = f"{model.parameters:,}" if model.parameters else "?"
        rows.append((model.name, model.about, parameters, _size(model.size), model.where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {about:<{widths[1]}}  {parameters:>{widths[2]}}  {size:>{widths[3]}}  {where}"
        for name, about, parameters, size, where in rows
    )


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "?"
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {letter}B"
    return f"{n_bytes} B"


def _from_here(folder: Path) -> str:
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def _say(text: object, status: int) -> int:
    print(f"mi: {text}", file=sys.stderr)
    return status
