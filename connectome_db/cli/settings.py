"""Settings that must be in the environment before NumPy and TensorFlow load. Imported for its effect."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # results must not depend on a linear algebra library's threads
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

APPLIED = True
