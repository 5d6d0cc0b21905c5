"""`mi models` and `mi train`: what models there are, how to get them, how they were made."""

import os
import sys
from pathlib import Path

from utils.course import paths
from utils.models import catalogue
from utils.models.bundled import BUNDLED, ModelFileError
from utils.models.hub import ModelUnavailable
from utils.models.packaged import PACKAGED

INTERRUPTED = 130  # what a shell reports of a command that was stopped with Ctrl-C


def models(fetch: str | None) -> int:
    """List the models, or fetch the one of this name; returns the exit status."""
    try:
        print(f"{fetch} is in {catalogue.fetch_model(fetch)}" if fetch else _table(catalogue.standings()))
    except catalogue.UnknownModel as error:
        return _say(error, 2)
    except (ModelUnavailable, ModelFileError) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        then = "starts again" if fetch in PACKAGED else "goes on from where it was"
        return _say(f"Stopped. The same command {then}.", INTERRUPTED)
    return 0


def train(name: str, seed: int, ship: bool) -> int:
    """Run a training recipe, into ``build/models`` unless the result is to ship; returns the exit status."""
    folder = (BUNDLED if ship else paths.ROOT / "build" / "models") / (f"{name}-seed-{seed}" if seed else name)
    try:
        catalogue.train_model(name, folder, seed)
    except catalogue.UnknownModel as error:
        return _say(error, 2)
    except OSError as error:
        return _say(f"{name} could not be written: {error}", 1)
    except KeyboardInterrupt:
        then = "goes on from where it was" if catalogue.recipe(name).resumes else "starts again"
        return _say(f"Stopped. The same command {then}.", INTERRUPTED)
    print(f"{name} is in {_from_here(folder)}")
    return 0


def _table(standings: list[catalogue.Standing]) -> str:
    rows = [("name", "what it is", "licence", "from", "parameters", "size", "where")]
    for model in standings:
        parameters = f"{model.parameters:,}" if model.parameters else "?"
        words = (model.name, model.about, model.licence, model.origin)
        rows.append((*words, parameters, _size(model.size), model.where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = "<<<<>>"  # numbers to the right; the last column needs no width
    lines = []
    for *cells, last in rows:
        padded = [f"{cell:{side}{width}}" for cell, side, width in zip(cells, aligned, widths, strict=False)]
        lines.append("  ".join([*padded, last]))
    return "\n".join(lines)


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
