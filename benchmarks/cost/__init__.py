"""What a ranking costs: the passes, the host, the scores, a whole bank. On one thread."""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # here, since it must come before numpy is imported
