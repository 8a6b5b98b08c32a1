"""Sphinx configuration: ``sphinx-build -W -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # document this checkout, installed or not

import pq

project = "pq"
author = "the authors of pq"
copyright = author
release = version = pq.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_generated"]  # the generated parts are included by other pages
default_role = "py:obj"  # `Queue.get` in a docstring becomes a link where it can
rst_prolog = ".. py:currentmodule:: pq\n"  # so does `Queue.get` on a page

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"pq {release}"
html_show_copyright = False


def setup(app):
    app.connect("autodoc-process-docstring", keep_underscores)


def keep_underscores(app, what, name, obj, options, lines):
    """Show the parameter `in_` under its name: `in_` is markup for a link, whose text is "in"."""
    lines[:] = [line.replace(":param in_:", r":param in\_:") for line in lines]
