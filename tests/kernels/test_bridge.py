from __future__ import annotations

import numpy as np

from connectome_db.kernels.bridge import EMPTY, MISSING, bridge, tissue_of
from connectome_db.kernels.tissue_mask import CLASSES


def column(values: list[int]) -> np.ndarray:
    return np.asarray(values, np.uint8)[:, None, None]


def test_classes_are_those_of_the_mask() -> None:
    assert [CLASSES[k] for k in MISSING + EMPTY] == ["outside", "blank", "resin", "crack"]
    assert tissue_of(column(list(range(7)))).ravel().tolist() == [True, False, False, True, False, False, True]


def test_short_gaps_take_the_nearest_section() -> None:
    image = column([10, 0, 0, 40, 0, 0, 0, 80, 0])
    mask = column([0, 1, 5, 0, 5, 5, 5, 0, 1])
    out, tissue = bridge(image, mask, 2)
    assert out.ravel().tolist() == [10, 10, 40, 40, 0, 0, 0, 80, 0]
    assert tissue.ravel().tolist() == [True, True, True, True, False, False, False, True, False]
    assert bridge(image, mask, 3)[0].ravel().tolist() == [10, 10, 40, 40, 40, 40, 80, 80, 0]
    assert bridge(image, mask, 0)[1].sum() == 3


def test_gaps_that_end_in_resin_stay_open() -> None:
    out, tissue = bridge(column([10, 0, 30]), column([0, 5, 2]), 2)
    assert out.ravel().tolist() == [10, 0, 30]
    assert tissue.ravel().tolist() == [True, False, False]
