"""The one place where skte touches private parts of scikit-learn, and its decorators.

When a scikit-learn release moves one of these names, this is the file to change.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.callback import with_callbacks as _with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED

__all__ = ["UNUSED", "Interval", "StrOptions", "fit_context", "with_callbacks"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


# To a type checker, what an untyped decorator has touched is Any: fit() would take
# everything and return nothing known. These two say that they keep the signature.
def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """Check parameters before ``fit``, which keeps its signature."""
    decorator: Callable[[_Method], _Method] = _fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )
    return decorator


def with_callbacks(method: _Method) -> _Method:
    """Tell scikit-learn's callbacks when ``fit`` begins and ends; it keeps its signature."""
    decorated: _Method = _with_callbacks(method)
    return decorated
