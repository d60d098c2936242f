"""The tissue's truth is true: labels connected, partners touch, the graph is the synapses'."""

import cc3d
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from connectome_db.phantom.tissue import TissueConfig, make_tissue

TINY = TissueConfig(seed=5, shape_vx=(8, 96, 104), dust_vx=200, synapses_per_um3=15)


def test_same_seed_same_bytes_other_seed_other_tissue():
    one, two = make_tissue(TINY), make_tissue(TINY)
    for name in ("image", "labels", "cleft"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
    assert one.synapses.equals(two.synapses)
    assert one.graph.equals(two.graph)
    other = make_tissue(TINY.model_copy(update={"seed": 6}))
    assert (other.labels != one.labels).mean() > 0.5


def test_labels_are_dense_connected_and_fill_the_volume(tissue):
    count = int(tissue.labels.max())
    assert np.array_equal(np.unique(tissue.labels), np.arange(count + 1))
    assert int(cc3d.connected_components(tissue.labels, connectivity=6).max()) == count
    assert 0.03 < (tissue.labels == 0).mean() < 0.2
    sizes = np.bincount(tissue.labels.ravel())[1:]
    assert sizes.min() >= tissue.config.dust_vx
    assert tissue.neurites["size_vx"].to_pylist() == sizes.tolist()


def test_membranes_are_dark_lines_but_no_threshold_finds_them(tissue):
    membrane = tissue.labels == 0
    inside = ndimage.distance_transform_edt(~membrane, sampling=(30, 8, 8)) > 60
    image = tissue.image.astype(float)
    assert image[membrane].mean() < image[inside].mean() - 40
    # Mitochondria and vesicles make a share of the inside as dark as the typical membrane.
    assert (image[inside] < np.median(image[membrane])).mean() > 0.01
    assert 110 < image.mean() < 200
    assert image.std() > 20


def test_both_partners_touch_at_every_synapse(tissue):
    assert tissue.synapses.num_rows >= 5
    axon = dict(zip(tissue.neurites["label"].to_pylist(), tissue.neurites["axon"].to_pylist(), strict=True))
    for row in tissue.synapses.to_pylist():
        mine = tissue.cleft == row["synapse"]
        assert mine.sum() == row["cleft_vx"]
        assert np.allclose(np.mean(np.nonzero(mine), axis=1), [row["z"], row["y"], row["x"]])
        rim = ndimage.binary_dilation(mine, np.ones((3, 5, 5)))
        found = np.unique(tissue.labels[rim])
        assert row["pre"] in found
        assert row["post"] in found
        assert axon[row["pre"]]
        assert not axon[row["post"]]
        assert 10_000 < row["area_nm2"] < 250_000


def test_polarity_shows(tissue):
    """Near synapses the postsynaptic side is darker at the membrane (density), the presynaptic one is granular."""
    distance = ndimage.distance_transform_edt(tissue.cleft == 0, sampling=(30, 8, 8))
    near = (distance > 0) & (distance < 25)
    pre, post = (np.isin(tissue.labels, np.unique(tissue.synapses[n].to_numpy())) for n in ("pre", "post"))
    assert tissue.image[near & post].mean() < tissue.image[near & pre].mean() - 10


def test_graph_counts_the_synapses(tissue):
    rows = tissue.synapses.to_pylist()
    edges = {(row["pre"], row["post"]): row for row in tissue.graph.to_pylist()}
    assert sum(row["synapses"] for row in edges.values()) == len(rows)
    for (pre, post), edge in edges.items():
        mine = [row for row in rows if (row["pre"], row["post"]) == (pre, post)]
        assert edge["synapses"] == len(mine)
        assert edge["area_nm2"] == pytest.approx(sum(row["area_nm2"] for row in mine))


def test_synapses_keep_apart(tissue):
    points = np.stack([tissue.synapses[n].to_numpy() for n in "zyx"], axis=1) * [30, 8, 8]
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    assert apart.min() > 250


def test_config_refuses_misspelt_fields():
    with pytest.raises(ValidationError, match="sead"):
        TissueConfig(sead=3)
    with pytest.raises(ValidationError):
        TINY.seed = 4


@pytest.mark.slow
def test_demo_volume_is_rich_enough():
    tissue = make_tissue(TissueConfig())
    strong = (tissue.graph["synapses"].to_numpy() >= 2).sum()
    assert 60 <= len(np.unique(tissue.neurites["neurite"].to_numpy())) <= 130
    assert 60 <= tissue.synapses.num_rows <= 150
    assert strong >= 15
