"""Configuration of the documentation, which `make docs` builds without a network."""

import json
import os
import sys
import tomllib
from pathlib import Path

import matplotlib as mpl
from docutils.nodes import SkipNode
from latex2mathml.converter import convert

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the modules beside this file
from command_options import CommandOptions  # noqa: E402
from gallery import draw_gallery  # noqa: E402

import truemorph  # noqa: E402

mpl.use("agg")
os.environ.setdefault("TRUEMORPH_REAL_DATA", str(HERE.parent.parent / "shared" / "data"))  # for docs/tutorials/bars.md
project, author, copyright = "truemorph", "The truemorph developers", "The truemorph developers"
release = truemorph.__version__
version = "dev" if "dev" in release else release
URLS = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_design"]
exclude_patterns = ["_build", "jupyter_execute", "numbers", "**/README.md"]  # pages include docs/numbers
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = True

# Notebooks run at each build, from an empty folder. Their progress lines are left out.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 1200
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
nb_merge_streams = True
nb_render_markdown_format = "gfm"

autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "truemorph"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "truemorph"},
    "header_links_before_dropdown": 7,
    "icon_links": [
        {"name": "Repository", "url": url, "icon": "fa-solid fa-code-branch"}
        for name, url in URLS.items()
        if name == "Repository"
    ],
    "navbar_persistent": ["search-button"],
    "navbar_end": ["version-switcher", "theme-switcher"],
    "switcher": {"json_url": "../switcher.json", "version_match": version},
    "check_switcher": False,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
html_sidebars = {"index": [], "start": [], "decide": []}


def spread_notebooks(app, env, names):
    """Reorder pages: Sphinx gives ten neighbours to one process, and notebooks are neighbours."""
    apart = len(names) // 10 + 1
    names[:] = [one for first in range(apart) for one in names[first::apart]]


def list_versions(app, problem):
    """Write the list of versions beside their folders, and a page that leads to the newest.

    DOCS_URL is where the folder of versions is served, if not at the root of a host.
    """
    if problem is not None or app.builder.name != "html":
        return
    root = Path(app.outdir).parent
    folders = sorted((one.name for one in root.iterdir() if (one / "index.html").is_file()), key=_by_numbers)
    newest = folders[-1]
    where = os.environ.get("DOCS_URL", "")
    entries = [{"version": one, "url": f"{where}/{one}/", "preferred": one == newest} for one in reversed(folders)]
    (root / "switcher.json").write_text(json.dumps(entries, indent=2) + "\n")
    (root / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={newest}/index.html">\n')


def _by_numbers(name):
    return [int(one) if one.isdigit() else -1 for one in name.split(".")]


def _as_mathml(display):
    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit


def setup(app):
    """Add formulas as MathML, tables of options, and the figures of the front page."""
    app.add_html_math_renderer("mathml", (_as_mathml("inline"), None), (_as_mathml("block"), None))
    app.add_directive("command-options", CommandOptions)
    # Methods that scikit-learn adds to every estimator.
    app.connect("autodoc-skip-member", lambda app, what, name, obj, skip, options: skip or name.endswith("_request"))
    os.environ["DOCS_FOLDER"] = str(HERE)  # for notebooks, which run elsewhere
    app.connect("builder-inited", lambda app: draw_gallery(HERE / "generated"))
    app.connect("env-before-read-docs", spread_notebooks)
    app.connect("build-finished", list_versions)
