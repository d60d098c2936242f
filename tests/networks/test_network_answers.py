"""The memory that other tests use for networks: it gives what the network gives, and only for the same question."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from connectome_db.networks.inference import load_network
from tests.network_answers import FOLDER, remembered


def test_an_answer_is_the_networks_and_only_for_the_same_question(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    network = load_network(model_folder)
    image = np.random.default_rng(1).integers(0, 255, (4, 16, 24), dtype=np.uint8)
    truth = network.predict(image)
    assert os.listdir(tmp_path) == []
    with remembered():
        assert (network.predict(image) == truth).all()
        (kept,) = tmp_path.iterdir()
        np.save(kept, truth + 1)
        assert (network.predict(image) == truth + 1).all()  # it was not asked again
        for other in (255 - image, image[:, ::-1], image.reshape(4, 24, 16)):
            assert not np.array_equal(network.predict(other), truth + 1)
        assert (replace(network, model_id="another").predict(image) == truth).all()
    assert len(os.listdir(tmp_path)) == 5
    assert (network.predict(image) == truth).all()
