"""One small tissue and one acquisition of it, for all tests of the phantom."""

import pytest

from connectome_db.phantom.acquire import AcquireConfig, acquire
from connectome_db.phantom.artefacts import Artefacts, Fold, StainingGradient, TileName
from connectome_db.phantom.tissue import TissueConfig, make_tissue
from connectome_db.phantom.truth import Truth

SMALL = TissueConfig(seed=3, shape_vx=(14, 200, 216), dust_vx=400, synapses_per_um3=12)
FIRST = 5


@pytest.fixture(scope="session")
def tissue():
    return make_tissue(SMALL)


@pytest.fixture(scope="session")
def acquire_config():
    return AcquireConfig(
        seed=2,
        first_section=FIRST,
        shift_px=6,
        warp_px=2,
        artefacts=Artefacts(
            staining=StainingGradient(corner=(0, 1), strength=0.8),
            missing_tiles=(TileName(section=FIRST + 2, row=1, col=0),),
            fold=Fold(section=FIRST + 4, width_px=10, softness_px=4, offset_px=10),
            defocused_section=FIRST + 7,
            blank_section=FIRST + 9,
        ),
    )


@pytest.fixture(scope="session")
def acquired(tissue, acquire_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("acquired")
    acquire(
        tissue.image,
        acquire_config,
        folder,
        voxel_nm=SMALL.voxel_nm,
        labels=tissue.labels,
        cleft=tissue.cleft,
        synapses=tissue.synapses,
    )
    return folder


@pytest.fixture(scope="session")
def truth(acquired):
    return Truth.load(acquired)
