"""How Sphinx makes the site: `python -m sphinx -W docs build/site`, see CONTRIBUTING.md."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from streamtrain import __version__  # noqa: E402

project = "streamtrain"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "made_pages"]
exclude_patterns = ["_build"]
default_role = "py:obj"
smartquotes = False
toc_object_entries_show_parents = "hide"

myst_heading_anchors = 6
myst_enable_extensions = ["attrs_inline"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("ArrayLike", "ModelFunction", "Split")}
autodoc_typehints_format = "short"
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"streamtrain {version}"
html_theme_options = {
    "light_css_variables": {"code-font-size": "var(--font-size--small--2)"}  # 100 characters
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_copyright = False
