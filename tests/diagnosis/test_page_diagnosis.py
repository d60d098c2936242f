"""The page of a diagnosis: the verdict first, the chain from L5 to L1, the layer that is the cause marked."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from connectome_db.diagnosis.pages.diagnosis_page import decisive, diagnosis_page, verdict
from connectome_db.revisions import Revision, open_revision
from tests.diagnosis import quality_project
from tests.diagnosis.html_facts import Facts


def _step(
    layer: str, level: str, metric: str, effect: float, *, differs: bool = True, worse: bool = True
) -> dict[str, Any]:
    return {
        "level": level, "layer": layer, "metric": metric, "measure": "1", "region": 0.5, "reference": 1.0,
        "relative": -0.5, "effect": effect, "ci95": [effect - 1, effect + 1], "p_value": 0.01, "q_value": 0.02,
        "differs": differs, "worse": worse,
    }  # fmt: skip


ARTEFACT: dict[str, Any] = {
    "format": 1, "project": "corner", "commit": None, "metric": "connection_density",
    "region": {"name": quality_project.EVIL, "box_nm": list(quality_project.CORNER_NM)},
    "reference": {"name": "centre", "box_nm": [0, 256, 256, 480, 1024, 1024]},
    "difference": {
        "metric": "connection_density", "measure": "um-3", "region": 0.77, "reference": 1.1, "relative": -0.31,
        "ci95": [-0.38, -0.24], "p_value": 0.001, "real": True, "n_region": 64, "n_reference": 192,
        "edge_corrected": True, "says": "31 % fewer connections",
    },
    "walk": [
        _step("graph", "L5", "connection_density", -3.0), _step("graph", "L5", "border_cut", -9.0),
        _step("synapses", "L4", "synapse_confidence", -2.0), _step("synapses", "L4", "synapse_density", -4.0),
        _step("segment", "L3", "affinity_certainty", 1.0, differs=False),
        _step("ingest", "L1", "raw_noise", -8.0), _step("ingest", "L1", "raw_membrane_contrast", -6.0),
    ],
    "facts": [{"stage": "segment", "fact": "params", "region": "a", "reference": "b", "says": quality_project.EVIL}],
    "explained": {"fraction": 0.8, "ci95": [0.6, 0.9], "says": "80 % goes with it"},
    "verdict": "artefact",
    "cause": {
        "name": "staining", "layer": "ingest", "metric": "raw_membrane_contrast", "confidence": 0.93,
        "says": "membranes are paler", "sections": None,
    },
    "proposals": [
        {"id": "flag", "title": "Flag it", "why": "to know", "commands": ["connectome regions add corner"],
         "region": {"name": "corner", "box_nm": []}, "overrides": []},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def revision(tmp_path_factory: pytest.TempPathFactory) -> Revision:
    return open_revision(quality_project.write(tmp_path_factory.mktemp("d")).root)


def _facts(diagnosis: dict[str, Any], revision: Revision) -> Facts:
    return Facts(diagnosis_page(diagnosis, revision.root, revision))


def test_the_chain_goes_from_the_graph_to_the_tiles_and_marks_the_cause(revision: Revision):
    facts = _facts(ARTEFACT, revision)
    chain = [a for a in facts.all("li") if "data-level" in a]
    assert [a["data-level"] for a in chain] == ["L5", "L4", "L3", "L2", "L1"]
    assert [a.get("class", "") for a in chain] == ["differs", "differs", "", "", "cause differs"]
    assert facts.text.index("Artefact in") < facts.text.index("31 % fewer connections")
    assert "confidence 93 %" in facts.text
    assert facts.text.count("The gradient enters here") == 1
    assert facts.unbalanced == []
    assert facts.requests() == []


def test_each_layer_is_told_by_what_decides():
    chosen = {level: s["metric"] for level, s in decisive(ARTEFACT).items()}
    assert chosen == {
        "L5": "connection_density",  # asked about, though the border's effect is larger
        "L4": "synapse_density",  # the largest that differs for the worse
        "L3": "affinity_certainty",
        "L1": "raw_membrane_contrast",  # the cause, though the noise differs more
    }


def test_maps_outline_the_region_and_the_reference(revision: Revision):
    facts = _facts(ARTEFACT, revision)
    maps = {a["data-metric"] for a in facts.all("article") if "data-metric" in a}
    assert maps == {"connection_density", "synapse_density", "affinity_certainty", "raw_membrane_contrast"}
    assert len(facts.all("rect", class_="outline")) == 4
    region = facts.all("rect", class_="outline")[0]
    other = facts.all("rect", class_="outline other")[0]
    assert float(region["x"]) > float(other["x"])
    # The corner is the right half of the map, and the lower one.
    whole = facts.all("rect", class_="hole")[0]
    assert float(region["width"]) == pytest.approx(float(whole["width"]) / 2, abs=0.02)
    assert float(region["y"]) == pytest.approx(float(whole["y"]) + float(whole["height"]) / 2, abs=0.02)


def test_its_texts_stay_texts_and_its_commands_can_be_copied(revision: Revision):
    facts = _facts(ARTEFACT, revision)
    assert len(facts.all("script")) == 1
    assert facts.all("img") == []
    assert quality_project.EVIL in "".join(facts.words)
    assert facts.all("button", aria_label="Copy: connectome regions add corner")


def test_biology_is_called_biology(revision: Revision):
    found = copy.deepcopy(ARTEFACT)
    found |= {"verdict": "biology", "cause": None, "explained": None, "proposals": []}
    facts = _facts(found, revision)
    assert "consistent with biology" in verdict(found)
    assert not [a for a in facts.all("li") if "cause" in a.get("class", "")]
    assert "No layer is named as the cause" in facts.text
    assert facts.all("p", id="verdict")[0]["class"] == "lead verdict biology"


def test_what_is_missing_is_left_out(tmp_path: Path):
    found = copy.deepcopy(ARTEFACT)
    found |= {"verdict": "no difference", "cause": None, "difference": None, "walk": [], "facts": [], "explained": None}
    found["reference"] = {"name": "rest", "box_nm": None}
    (tmp_path / "data").mkdir()
    facts = _facts(found, open_revision(tmp_path))
    assert "No difference in" in facts.text
    assert facts.unbalanced == []


def test_a_metric_of_neurons_has_no_map_and_no_harm(revision: Revision):
    found = copy.deepcopy(ARTEFACT)
    found["walk"] = [_step("graph", "L5", "out_degree", -3.0) | {"effect": None, "ci95": None, "relative": None}]
    found["difference"] |= {"relative": None, "ci95": None}
    facts = _facts(found, revision)
    assert "No cells of this metric" in facts.text
    assert "no effect could be estimated" in facts.text
