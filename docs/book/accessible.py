"""What the theme and myst-nb leave out for readers who use a keyboard or a screen reader."""

from sphinx.application import Sphinx

MENDED = {
    # A heading's rank has to be said.
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    # What a fold is called is what stands on it.
    '<summary aria-label="Toggle hidden content">': "<summary>",
}


def mend(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    for part in {"body", "furo_navigation_tree"} & set(context):
        for left_out, mended in MENDED.items():
            context[part] = context[part].replace(left_out, mended)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", mend, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
