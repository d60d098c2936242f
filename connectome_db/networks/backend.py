"""The one place where Keras is imported: lazily, because it costs seconds and most commands never need it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from connectome_db.errors import ConfigError

logger = logging.getLogger(__name__)

PREDICTION_THREADS = 2
"""CPU threads of every prediction, however many cores there are: the last bits of an answer depend on this number.

Eigen, which multiplies for TensorFlow, cuts products into blocks by the number of its threads
(`computeProductBlockingSizes`), so sums are taken in another order. More cores are used by more ranks.
"""


def keras_module() -> Any:
    """Return Keras 3 on the backend of KERAS_BACKEND (TensorFlow unless set); a missing backend is a ConfigError."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes would break the progress bars
    try:
        with _hushed():
            import keras  # noqa: PLC0415 - seconds to import: paid only by those who predict or train
    except ImportError as problem:
        raise ConfigError(
            f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}: wanted an installed neural-network library, got: {problem}; "
            "install it, or set KERAS_BACKEND to tensorflow or jax"
        ) from problem
    return keras


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what native libraries write to stderr while they load; no setting stops TensorFlow's first lines."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def use_threads(threads: int) -> None:
    """Ask for `threads` CPU threads for all later work of this process.

    TensorFlow fixes its thread pool at first use: a later, different request keeps the first one, with a warning. Other
    backends take their threads from their own environment.
    """
    if threads < 1:
        raise ConfigError(f"threads: wanted at least 1, got {threads}")
    keras = keras_module()
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf  # noqa: PLC0415 - as above

    options = tf.config.threading
    if options.get_intra_op_parallelism_threads() == threads:
        return
    try:
        options.set_intra_op_parallelism_threads(threads)
        options.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.warning("TensorFlow already runs with other threads in this process; %d threads not applied", threads)
