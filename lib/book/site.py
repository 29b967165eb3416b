"""From sources to a site: the settings of Sphinx, and its run."""

import io
import re
import shutil
from pathlib import Path

from lib.book.look import CSS
from lib.params import ConfigError

SETTINGS = {
    "project": "Adversarial training",
    "extensions": ["myst_nb", "sphinx-mathjax-offline"],
    "language": "en",
    "smartquotes": False,
    "html_theme": "furo",
    "html_title": "Adversarial training: a companion",
    "html_css_files": ["book.css"],
    "html_static_path": ["_static"],
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # needs a server: a page opened as a file may not read other files
    "html_theme_options": {"top_of_page_buttons": []},
    "nb_execution_mode": "off",
    "nb_code_prompt_show": "Show the code",
    "nb_code_prompt_hide": "Hide the code",
    "myst_enable_extensions": ["dollarmath", "amsmath", "attrs_inline", "attrs_block", "tasklist"],
    "myst_heading_anchors": 4,
}
LEFT = (".buildinfo", ".buildinfo.bak", "objects.inv", "_sources")  # for other tools, or empty


def build(source: Path, target: Path) -> None:
    """Build the site of the sources in `source` into `target`. Raises ConfigError with whatever Sphinx warns of."""
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace

    (source / "_static").mkdir()
    (source / "_static" / "book.css").write_text(CSS)
    warnings = io.StringIO()
    try:
        with docutils_namespace():
            Sphinx(source, None, target, source.parent / "doctrees", "html", dict(SETTINGS), status=None,
                   warning=warnings, freshenv=True).build()
    except SphinxError as error:
        raise ConfigError(f"the book was not built: {error}") from error
    said = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).replace(f"{source}/", "").strip()
    if said:
        raise ConfigError(f"the book was not built, for Sphinx warns:\n{said}")
    for name in LEFT:
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
