"""Sphinx: python -m sphinx -W --keep-going -b html docs docs/_build/html."""

import importlib
import inspect
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import skte

sys.path.insert(0, str(Path(__file__).parent))

project = "skte"
author = "The skte developers"
copyright = author
version = release = skte.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False  # autodoc lists them, with what they do
autodoc_typehints = "none"  # numpydoc's sections say it
autodoc_member_order = "bysource"
add_module_names = False

# In examples a warning is read for what it says; where skte is installed does not matter.
warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "image_scrapers": ("_gallery.display_scraper",),
    "reset_modules": (),
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skte"
html_static_path = ["_static"]
html_css_files = ["skte.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
# Pages without a section have nothing to list beside them.
ALONE = (
    "index", "get-started", "faq", "paper", "glossary", "reliability", "tolerances",
    "compatibility",
)  # fmt: skip
html_sidebars: dict[str, list[str]] = {page: [] for page in ALONE}
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": False,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
}

ROOMS = [
    "datasets",
    "bank",
    "features",
    "extraction",
    "estimators",
    "selection",
    "evaluation",
    "metrics",
    "report",
    "exceptions",
]
HEADER = "{title}\n{line}\n\n.. currentmodule:: skte.{room}\n\n{doc}\n\n"


def api_page(room: str) -> str:
    """Document everything a room exports, and nothing else."""
    module = importlib.import_module(f"skte.{room}")
    title = f"skte.{room}"
    page = HEADER.format(title=title, line="=" * len(title), room=room, doc=module.__doc__)
    members = "   :members:\n   :inherited-members: BaseEstimator, tuple, list\n"
    for name in sorted({*module.__all__, *functions_beside(module)}):
        value = getattr(module, name)
        page += f"{name}\n{'-' * len(name)}\n\n"
        if inspect.isclass(value):
            page += f".. autoclass:: skte.{room}.{name}\n{members}\n"
        elif inspect.isfunction(value):
            page += f".. autofunction:: skte.{room}.{name}\n\n"
        else:
            page += f".. py:data:: {name}\n\n   {comment(room, name)}\n\n"
    return page


def functions_beside(module: Any) -> list[str]:
    """Names that `skte.estimators` has beside the estimators, which its ``__all__`` lists."""
    of_room = module.__name__ == "skte.estimators"
    return [
        name
        for name, value in vars(module).items()
        if of_room
        and name[0] != "_"
        and str(getattr(value, "__module__", "")).startswith(module.__name__)
    ]


def comment(room: str, name: str) -> str:
    """Return what ``#:`` says of a constant where it is made, which autodoc does not follow."""
    for path, module in list(sys.modules.items()):
        if path.startswith(f"skte.{room}._") and hasattr(module, name):
            found = re.search(rf"((?:^#:.*\n)+){name}\b", inspect.getsource(module), re.MULTILINE)
            if found:
                return " ".join(line.removeprefix("#:").strip() for line in found[1].splitlines())
    raise LookupError(f"skte.{room}.{name} has no comment '#:' above it.")


def write_api(app: object) -> None:
    """Write the API pages; only those that changed, so that builds stay short."""
    folder = Path(__file__).parent / "api"
    folder.mkdir(exist_ok=True)
    listed = "\n".join(f"   {room}" for room in ROOMS)
    intro = (
        "API\n===\n\nEverything public, room by room, in the order in which data flows. The main "
        "names also stand at the root: ``from skte import CCFV``.\n\n"
        ".. autofunction:: skte.memory_limit\n\n"
        ".. toctree::\n   :maxdepth: 2\n\n"
    )
    pages = {room: api_page(room) for room in ROOMS} | {"index": f"{intro}{listed}\n"}
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def date_results(app: object, page: str, source: list[str]) -> None:
    """Put dates and commits of the results behind the commands that made them."""
    source[0] = re.sub(r"`python -m benchmarks\.(\w+)[^`\n]*`", _dated, source[0])


def _dated(command: re.Match[str]) -> str:
    runs: set[tuple[str, str]] = set()
    for path in (Path(__file__).parents[1] / "benchmarks" / command[1]).rglob("*.json"):
        runs |= set(re.findall(r'"date": "(.*?)",\s*"commit": "(.{7})', path.read_text("utf-8")))
    if not runs:
        return command[0]
    dates, commits = (sorted(set(column)) for column in zip(*runs, strict=True))
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"{command[0]} \\[{when}, commit {', '.join(commits)}\\]"


def skip_foreign(
    app: object, what: str, name: str, obj: object, skip: bool, options: object
) -> bool:
    """Leave out what classes inherit from scikit-learn and others: their docs have it."""
    source = getattr(obj, "fget", None) or getattr(obj, "__func__", obj)
    home = getattr(source, "__module__", None) or "skte"
    routed = name.startswith("set_") and name.endswith("_request")
    return skip or routed or not str(home).startswith("skte")


def write_math(translator: Any, node: Any) -> None:
    """Write mathematics as MathML, which browsers show without a script from elsewhere."""
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("builder-inited", write_api)
    app.connect("source-read", date_results)
    app.connect("autodoc-skip-member", skip_foreign)
