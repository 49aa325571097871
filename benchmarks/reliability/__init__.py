"""What happens to a run when something goes wrong: faults on purpose, and hostile files."""

import os

# Before anything imports numpy or torch: runs are forked, and several at a time.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"
