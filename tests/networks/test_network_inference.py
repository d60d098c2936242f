import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from connectome_db.errors import ConfigError, StageError
from connectome_db.networks.architecture import (
    Level,
    UNetConfig,
    alignment_vx,
    flops_per_voxel,
    receptive_margin_vx,
)
from connectome_db.networks.inference import Network, _tiles, load_network
from connectome_db.networks.registry import BUNDLED

IMAGE = np.random.default_rng(3).integers(0, 256, (12, 61, 70), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(model_folder: Path) -> Network:
    return load_network(model_folder)


def test_output_is_probability_of_the_input_extent(network: Network) -> None:
    out = network.predict(IMAGE)
    assert out.shape == (3, *IMAGE.shape)
    assert out.dtype == np.float32
    assert 0 <= out.min() < out.max() <= 1
    assert out.std() > 0.01


@pytest.mark.parametrize("shift", [(0, 4, 8), (3, 8, 4), (1, 0, 12)])
def test_congruent_boxes_agree_on_shared_voxels(network: Network, shift: tuple[int, int, int]) -> None:
    assert network.alignment_vx == (1, 4, 4)
    whole = network.predict(IMAGE)
    part = network.predict(np.ascontiguousarray(IMAGE[shift[0] :, shift[1] : 55, shift[2] : 66]))
    inner = [slice(m, n - m) for m, n in zip(network.margin_vx, part.shape[1:], strict=True)]
    assert all(s.stop > s.start for s in inner)
    outer = [slice(s.start + d, s.stop + d) for s, d in zip(inner, shift, strict=True)]
    np.testing.assert_array_equal(part[(slice(None), *inner)], whole[(slice(None), *outer)])


def test_tiles_change_nothing(network: Network) -> None:
    tiled = dataclasses.replace(network, max_tile_vx=20_000)
    np.testing.assert_allclose(tiled.predict(IMAGE), network.predict(IMAGE), atol=1e-5, rtol=0)


def test_margin_is_exact(network: Network, small_config: UNetConfig) -> None:
    """A voxel beyond the margin changes nothing; the last voxel inside it changes something for some position."""
    before = network.predict(IMAGE)
    reached = np.zeros(3, np.int64)
    for at in [(6, 30, 30), (6, 31, 33), (5, 28, 35), (6, 33, 34), (6, 29, 36)]:
        changed = IMAGE.copy()
        changed[at] ^= 0xFF
        differs = np.argwhere(network.predict(changed) != before)[:, 1:]
        reached = np.maximum(reached, np.abs(differs - at).max(0))
    assert tuple(reached) == receptive_margin_vx(small_config)


def test_margin_follows_the_lattice() -> None:
    config = UNetConfig(
        channels=("a",),
        stem_kernel=(1, 1, 1),
        levels=(
            Level(features=1, kernels=(), encoder_blocks=0, decoder_blocks=0),
            Level(features=1, down=(1, 2, 4), kernels=((1, 3, 3),)),
        ),
    )
    assert alignment_vx(config) == (1, 2, 4)
    assert receptive_margin_vx(config) == (0, 3, 7)
    assert flops_per_voxel(config) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"channels": ("a", "a")}, "distinct"), ({"stem_kernel": (2, 3, 3)}, "odd"), ({"chanels": ()}, "chanels")],
)
def test_bad_architecture_is_refused(small_config: UNetConfig, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetConfig.model_validate({**small_config.model_dump(), **change})


def test_bad_image_is_refused(network: Network) -> None:
    with pytest.raises(StageError, match="uint8"):
        network.predict(IMAGE.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(StageError, match="non-empty"):
        network.predict(IMAGE[:0])


def test_a_single_voxel_is_predicted(network: Network) -> None:
    assert network.predict(IMAGE[:1, :1, :1]).shape == (3, 1, 1, 1)


def test_weights_of_another_architecture_are_refused(model_folder: Path, tmp_path: Path) -> None:
    text = (model_folder / "architecture.json").read_text()
    (tmp_path / "architecture.json").write_text(text.replace('"features": 6', '"features": 7'))
    (tmp_path / "weights.npz").write_bytes((model_folder / "weights.npz").read_bytes())
    with pytest.raises(ConfigError, match="fit the architecture"):
        load_network(tmp_path)


PREDICT = """
import hashlib, os, sys
from pathlib import Path
if sys.argv[2] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from connectome_db.networks.inference import load_network
image = np.random.default_rng(3).integers(0, 256, (12, 93, 102), dtype=np.uint8)
print(hashlib.sha256(load_network(Path(sys.argv[1])).predict(image).tobytes()).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot take cores from a process")
@pytest.mark.parametrize("model", [None, "phantom-affinity"], ids=["small", "bundled"])
def test_cores_do_not_change_a_bit(model_folder: Path, model: str | None) -> None:
    folder = BUNDLED / model if model else model_folder
    seen = set()
    for cores, threads in (("one", "1"), ("all", "3")):
        done = subprocess.run(
            [sys.executable, "-c", PREDICT, str(folder), cores],
            env=os.environ | {"OMP_NUM_THREADS": threads}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seen.add(done.stdout.strip())
    assert len(seen) == 1
    assert seen != {hashlib.sha256(b"").hexdigest()}


@pytest.mark.parametrize("shape", [(48, 480, 480), (8, 64, 64), (200, 2048, 64), (1, 8, 8)])
def test_tiles_cover_once_and_stay_small(shape: tuple[int, int, int]) -> None:
    count = np.zeros(shape, np.int8)
    for core in _tiles(shape, (1, 8, 8), (5, 50, 50), 3_000_000):
        count[tuple(slice(lo, hi) for lo, hi in core)] += 1
        assert all(lo % step == 0 for (lo, _), step in zip(core, (1, 8, 8), strict=True))
        read = [min(n, hi + m) - max(0, lo - m) for (lo, hi), n, m in zip(core, shape, (5, 56, 56), strict=True)]
        assert np.prod(read) <= 3_000_000
    assert (count == 1).all()
