"""What the examples draw, for sphinx-gallery."""

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def display_scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save figures, and those of skte's displays, which pyplot does not know, once each."""
    done = block_vars["example_globals"].setdefault("__drawn__", [])
    saved = []
    for display in list(block_vars["example_globals"].values()):
        figure = display if isinstance(display, Figure) else getattr(display, "figure_", None)
        if figure is not None and not any(figure is other for other in done):
            done.append(figure)
            saved.append(next(block_vars["image_path_iterator"]))
            figure.savefig(saved[-1], dpi=120)
    return figure_rst(saved, gallery_conf["src_dir"])
