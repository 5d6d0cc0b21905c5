"""Build the course as a book: `make book`, or `make book ARGS=--open` to look at it.

Every part becomes a page, from its executed solution notebook; nothing is executed. The pages need no server and no
network: open `build/book/html/index.html`, or put the folder on any static host.
"""

import argparse
import ast
import re
import shutil
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import demos  # noqa: E402
import pages  # noqa: E402

import utils  # noqa: E402
from utils.course import paths  # noqa: E402
from utils.course.manifest import Chapter, chapters, exercises  # noqa: E402
from utils.course.masters import duration  # noqa: E402

CARDS = sorted((paths.ROOT / "utils/models/weights").glob("*/CARD.md"))
# Pages that the repository has anyway, and what they are called in the book.
TAKEN = {paths.ROOT / "docs/CLAIMS.md": "claims.md", paths.ROOT / "docs/INSTRUCTORS.md": "instructors.md"} | {
    card: f"models/{card.parent.name}.md" for card in CARDS
}


def write_sources(source: Path, figures: Path, with_library: bool) -> None:
    """Everything that Sphinx reads, made anew."""
    for folder in (source, figures):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for chapter in chapters():
        for part in chapter.parts:
            pages.write(part, source, figures)
        if len(chapter.parts) > 1:
            (source / chapter.name / "index.md").write_text(_chapter_page(chapter, with_library), encoding="utf-8")
    for path, name in TAKEN.items():
        target = source / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(_taken(path), encoding="utf-8")
    _write_function_pages(source / "functions")
    shutil.copy(HERE / "about.md", source)
    glossary = (HERE / "glossary.md").read_text(encoding="utf-8")
    (source / "glossary.md").write_text(pages.PART.sub(pages.Links().part, glossary), encoding="utf-8")
    (source / "index.md").write_text(_index(with_library), encoding="utf-8")


def _index(with_library: bool) -> str:
    opening = (HERE / "index.md").read_text(encoding="utf-8")
    first = [f"{c.name}/index" if len(c.parts) > 1 else f"{c.name}/{c.parts[0].name}" for c in chapters()]
    more = ["glossary", "functions/index", "claims", *(f"models/{card.parent.name}" for card in CARDS)]
    rows = [
        f"| [{c.name[:2]} · {c.title}]({address}.{'md' if len(c.parts) > 1 else 'ipynb'}) | {len(c.parts)} "
        f"| {duration(sum(part.minutes for part in c.parts))} |"
        for c, address in zip(chapters(), first, strict=True)
    ]
    return "\n".join(
        [
            opening,
            demos.listed(with_library),
            "| chapter | parts | time |\n| --- | --- | --- |",
            *rows,
            "",
            _toctree("The course", first),
            _toctree("To look up", more),
            _toctree("For instructors", ["about", "instructors"]),
        ]
    )


def _toctree(caption: str, names: list[str]) -> str:
    title = f":caption: {caption}\n" if caption else ""
    return f"```{{toctree}}\n:hidden:\n{title}\n" + "\n".join(names) + "\n```\n"


def _chapter_page(chapter: Chapter, with_library: bool) -> str:
    """A chapter's demo, if it has one, and its parts, with what each holds."""
    rows = [
        f"| [{part.title}]({part.name}.ipynb) | {sum(not e.case for e in part.exercises)} | {duration(part.minutes)} |"
        for part in chapter.parts
    ]
    table = "\n".join(["| part | exercises | time |", "| --- | --- | --- |", *rows])
    text = (
        f"# {chapter.name[:2]} · {chapter.title}\n\n{demos.opening(chapter.name, with_library)}## Parts\n\n{table}\n\n"
    )
    return text + _toctree("", [part.name for part in chapter.parts])


def _taken(path: Path) -> str:
    """A page of the repository: links to pages that are in the book lead there, others become text."""

    def link(found: re.Match) -> str:
        text, address = found[1], found[2]
        if address.startswith(("http", "#")):
            return found[0]
        file, _, anchor = address.partition("#")
        name = TAKEN.get((path.parent / file).resolve())
        depth = "../" * TAKEN[path].count("/")
        return f"[{text}]({depth}{name}{'#' + anchor if anchor else ''})" if name else text

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]*)\)", link, path.read_text(encoding="utf-8"))


def _write_function_pages(folder: Path) -> None:
    """A page for each package of `utils`: of all that is public in it, the head and the docstring, as in the code."""
    folder.mkdir()
    root = Path(utils.__path__[0])
    packages = {
        path.name: sorted(path.glob("*.py")) for path in sorted(root.iterdir()) if (path / "__init__.py").exists()
    }
    names = []
    for package, files in (packages | {"plots": [root / "plots.py"]}).items():
        blocks = [block for file in files for block in _public(file)]
        if blocks:
            names.append(package)
            (folder / f"{package}.md").write_text(
                f"# `utils.{package}`\n\n" + "\n\n".join(blocks) + "\n", encoding="utf-8"
            )
    links = "\n".join(f"- [`utils.{name}`]({name}.md)" for name in names)
    text = f"# Functions\n\nAll that is public in the course's packages, each with its docstring.\n\n{links}\n\n"
    (folder / "index.md").write_text(text + _toctree("", names), encoding="utf-8")


def _public(file: Path) -> Iterator[str]:
    """For each public function and class of a module that has a docstring: a heading, and what it promises."""
    code = file.read_text(encoding="utf-8")
    lines = code.splitlines()
    module = ".".join(file.relative_to(paths.ROOT).with_suffix("").parts)
    for node in ast.parse(code).body:
        if (
            not isinstance(node, ast.FunctionDef | ast.ClassDef)
            or node.name.startswith("_")
            or not ast.get_docstring(node)
        ):
            continue
        head = "\n".join(lines[node.lineno - 1 : node.body[0].end_lineno])
        exercise = exercises().get(node.name)
        taught = ""
        if exercise and exercise.module == module:
            taught = f", {exercise.label} in [{exercise.part[:3].rstrip('_')}](#{pages.target(exercise)})"
        yield f"## `{node.name}`\n\n`{module}`{taught}\n\n```python\n{head}\n```"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--open", action="store_true", help="show the book in the browser")
    parser.add_argument("--out", type=Path, default=paths.ROOT / "build/book", help="folder (default: build/book)")
    arguments = parser.parse_args()
    html = arguments.out / "html"
    library = demos.library()
    write_sources(arguments.out / "source", html / "figures", with_library=library is not None)
    demos.write(html / "demos", library)
    failed = build_main(["-q", "-j", "auto", "-c", str(HERE), str(arguments.out / "source"), str(html)])
    if not failed:
        print(f"The book is in {html}: open {html / 'index.html'}")
        if arguments.open:
            webbrowser.open((html / "index.html").as_uri())
    return failed


if __name__ == "__main__":
    sys.exit(main())
