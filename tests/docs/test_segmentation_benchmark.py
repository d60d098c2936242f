"""The parts of `benchmarks/segmentation.py` that its numbers rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.segmentation import Charged, Part, made_elsewhere
from benchmarks.segmentation_rows import Row, Score, draw, scored
from tests.stages.truth_network import TruthAffinity


def test_voxels_without_a_segment_count_as_one_object_or_not_at_all() -> None:
    truth = np.zeros((2, 8, 8), np.uint32)
    truth[:, :, :3], truth[:, :, 5:] = 1, 2
    labels = np.where(truth > 0, truth + 6, 0)
    whole = scored(labels, truth)
    assert (whole.rand_all, whole.rand_covered, whole.coverage) == (0, 0, 1)
    labels[0] = 0  # half of both objects, now "one object"
    half = scored(labels, truth)
    assert half.coverage == 0.5
    assert half.rand_covered == half.split_covered == half.merge_covered == 0
    assert half.rand_all > 0.3
    assert half.split == pytest.approx(1)
    assert half.merge == pytest.approx(0.5)


def test_a_network_answers_once_and_both_methods_are_charged() -> None:
    network = Charged(TruthAffinity())
    image = np.zeros((2, 4, 4), np.uint8)
    first = network.predict(image)
    seconds, voxels = network.paid()
    assert network.predict(image.copy()) is first
    assert network.paid() == (seconds, voxels) == (network.answers[next(iter(network.answers))][1], 32)
    assert network.paid() == (0, 0)


def test_labels_made_elsewhere(tmp_path: Path) -> None:
    truth = np.ones((2, 4, 4), np.uint32)
    part = Part(np.zeros(truth.shape, np.uint8), truth, (10.0, 10.0, 10.0))
    np.savez(tmp_path / "a.npz", labels=truth, flops=64e6, seconds=2.0, name="mine")
    row = made_elsewhere("fib25", tmp_path / "a.npz", part)
    assert (row.name, row.mflop, row.total_vps, row.score.rand_all) == ("mine", 2.0, 16.0, 0.0)
    np.savez(tmp_path / "b.npz", labels=truth[:1], flops=1.0, seconds=0.0, name="mine")
    with pytest.raises(SystemExit, match="wanted labels of"):
        made_elsewhere("fib25", tmp_path / "b.npz", part)
    poor = Row("fib25", "net + mutex", "default", 0.1, 1e5, 1e5, Score(0.2, 0.2, 0.5, 0.5, 0.5, 0.5, 1.0))
    draw([row, poor], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
