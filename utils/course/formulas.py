"""Formulas as MathML, which browsers draw by themselves: no script, no font and no network is needed."""

import re

from latex2mathml.converter import convert


def formula(tex: str, display: str) -> str:
    """A formula as an HTML element, in the terms that latex2mathml knows: no \\arg, and no large \\lVert but ‖."""
    tex = tex.replace(r"\arg", r"\operatorname{arg}")
    return convert(re.sub(r"(\\[Bb]igg?)\s*\\[lr]Vert", r"\1‖", tex), display=display)
