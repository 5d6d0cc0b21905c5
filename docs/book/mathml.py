"""Formulas as MathML, which browsers draw by themselves: no script, no font and no network is needed."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def formula(tex: str, display: str) -> str:
    """A formula as an HTML element, in the terms that latex2mathml knows: no \\arg, and no large \\lVert but ‖."""
    tex = tex.replace(r"\arg", r"\operatorname{arg}")
    return convert(re.sub(r"(\\[Bb]igg?)\s*\\[lr]Vert", r"\1‖", tex), display=display)


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(formula(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{formula(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
