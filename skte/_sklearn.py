"""The one place where skte touches private parts of scikit-learn.

When a scikit-learn release moves one of these names, this is the file to mend.
"""

import os
from importlib.metadata import PackageNotFoundError, metadata

from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED

__all__ = ["UNUSED", "DocLinkMixin", "Interval", "StrOptions", "fit_context"]


class DocLinkMixin:
    """Diagrams of our estimators in notebooks link to their place in our documentation.

    Where that is, the installed package says ("Documentation" among its project URLs);
    the environment variable ``SKTE_DOCS_URL`` names a copy of one's own. There is no link
    where neither is known, nor for subclasses that others wrote.
    """

    def _get_doc_link(self) -> str:
        package, room = [*type(self).__module__.split("."), ""][:2]
        url = os.environ.get("SKTE_DOCS_URL") or _published_docs()
        if package != "skte" or not url:
            return ""
        return f"{url.rstrip('/')}/api/{room}.html#skte.{room}.{type(self).__name__}"


def _published_docs() -> str:
    try:
        urls = metadata("skte").get_all("Project-URL") or []
    except PackageNotFoundError:  # run from a folder, not installed
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return str(named.get("Documentation", ""))
