"""Sphinx's settings for the book. `build.py` writes the sources that they are applied to."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "Mechanistic interpretability, from the outside in"
author = "The course authors"
extensions = ["myst_nb", "sphinx_design", "mathml", "accessible"]

html_theme = "furo"
html_title = project
html_static_path = [str(HERE / "static")]
html_css_files = ["book.css", "demo.css"]
html_js_files = ["book.js"]
html_math_renderer = "mathml"
html_show_sphinx = html_show_copyright = html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks come executed
nb_ipywidgets_js = {}  # would be fetched from elsewhere
nb_merge_streams = True

suppress_warnings = ["mystnb.unknown_mime_type"]
