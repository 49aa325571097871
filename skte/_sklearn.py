"""The one place where skte touches private parts of scikit-learn.

When a scikit-learn release moves one of these names, this is the file to mend.
"""

from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED

__all__ = ["UNUSED", "Interval", "StrOptions", "fit_context"]
