"""The README's pictures of a notebook and of a demo: `python docs/book/pictures.py`, after `make book`; needs Chromium.

The notebook is part 02b as a learner has it, up to its first exercise, with a wrong answer, executed.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

sys.path.insert(0, str(Path(__file__).parent))

import browser  # noqa: E402

from utils.course import paths  # noqa: E402

HTML, DOCS = paths.ROOT / "build/book/html", paths.ROOT / "docs"
WRONG = "    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).tril(diagonal=-1)"


def answered_notebook() -> nbformat.NotebookNode:
    notebook = nbformat.read(paths.release_path("02_transformer_from_scratch", "02b_attention"), as_version=4)
    names = [cell.id for cell in notebook.cells]
    setup, box = names.index("02b-attention-3"), names.index("box-causal-mask")
    notebook.cells = [notebook.cells[i] for i in (setup, box, box + 1, box + 2)]
    stub = notebook.cells[2]
    signature, _, _ = stub.source.partition("\n")
    stub.source = f"{signature}\n{WRONG}"
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": str(paths.ROOT)}}).execute()
    notebook.cells = notebook.cells[1:]
    return notebook


def picture_of_notebook(driver) -> None:
    html, _ = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="").from_notebook_node(
        answered_notebook()
    )
    with TemporaryDirectory() as folder:
        page = Path(folder) / "notebook.html"
        page.write_text(html, encoding="utf-8")
        driver.get(page.as_uri())
        driver.find_element("css selector", "main").screenshot(str(DOCS / "diagnosis.png"))


def picture_of_demo(driver) -> None:
    browser.open_demo(driver, HTML, "02_transformer_from_scratch")
    driver.execute_script(
        "document.body.dataset.theme = 'light'; document.querySelector('.demo .step').textContent = ''"
    )
    driver.find_element("css selector", ".demo").screenshot(str(DOCS / "demo.png"))


def main() -> None:
    driver = browser.open_browser(width=1100, height=1400)
    try:
        picture_of_notebook(driver)
        picture_of_demo(driver)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
