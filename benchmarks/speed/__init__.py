"""Estimators against the forms they were published in, side by side, on one thread."""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # here, since it must come before numpy is imported
