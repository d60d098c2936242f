"""What users of neuprint-python and caveclient type."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.api.cave import CAVEclient
from connectome_db.api.connectome import Connectome
from connectome_db.api.neuprint import Client
from connectome_db.errors import QueryError
from connectome_db.lists.names import neuron_ids

N = neuron_ids(["A1", "A2", "B1", "B2", "C"])


def test_neuprint_verbs(toy: Connectome) -> None:
    client = Client(toy)
    neurons, regions = client.fetch_neurons({"type": "PN"})
    assert neurons[["instance", "type", "pre", "post"]].to_numpy().tolist() in (
        [["A1", "PN", 7, 1], ["A2", "PN", 8, 0]], [["A2", "PN", 8, 0], ["A1", "PN", 7, 1]],
    )  # fmt: skip
    a1 = regions[regions["bodyId"] == N["A1"]].set_index("roi")
    assert a1.loc["EB", ["pre", "post"]].tolist() == [5, 1]
    simple = client.fetch_simple_connections("A1", None, min_weight=2)
    assert simple.to_dict("records") == [
        {"bodyId_pre": N["A1"], "bodyId_post": N["B1"], "instance_pre": "A1", "instance_post": "B1", "type_pre": "PN",
         "type_post": "KC-ab", "weight": 6},
    ]  # fmt: skip
    bodies, edges = client.fetch_adjacencies("A1", {"type": "KC*"}, rois=["EB", "FB"])
    assert set(bodies["instance"]) == {"A1", "B1", "B2"}
    assert sorted(zip(edges["bodyId_post"], edges["roi"], edges["weight"], strict=True)) == sorted(
        [(N["B1"], "EB", 4), (N["B1"], "FB", 2), (N["B2"], "EB", 1)]
    )
    assert client.fetch_adjacencies("A1")[1]["weight"].sum() == 7
    paths = client.fetch_shortest_paths("A1", "C")
    assert paths["weight"].tolist()[0] == 0
    assert set(paths["path"]) == {0, 1}
    assert client.fetch_synapse_connections("A1", "B1")[["x", "y", "z"]].to_numpy().tolist() == [
        [10, 10, 10],
        [10, 10, 20],
    ]
    assert client.fetch_common_connectivity(["A1", "A2"], "downstream")["partner"].tolist() == [N["B1"], N["B2"]]
    assert client.fetch_custom("SELECT count(*) AS n FROM neuron")["n"][0] == 5


def test_cave_verbs(toy: Connectome) -> None:
    materialize = CAVEclient(toy).materialize
    rows = materialize.synapse_query(pre_ids=[N["A1"]], post_ids=N["B1"])
    assert rows["id"].tolist() == [1, 2]
    assert rows["pre_pt_root_id"].dtype == np.uint64
    box = materialize.synapse_query(bounding_box=[[0, 0, 0], [11, 51, 20]])  # x, y, z
    assert sorted(box["ctr_pt_position_y"]) == [10, 50]
    assert len(materialize.synapse_query(post_ids="C")) == 2
    assert len(materialize.synapse_query(post_ids="C", remove_autapses=False)) == 3
    found = materialize.query_table(
        "connection", filter_in_dict={"pre": [N["A1"], N["A2"]]}, filter_out_dict={"post": [N["B2"]]},
        select_columns=["pre", "synapses"],
    )  # fmt: skip
    assert sorted(found["synapses"]) == [3, 6]
    assert len(materialize.query_table("connection", filter_equal_dict={"synapses": 7})) == 1
    assert "connection" in materialize.get_tables()
    assert materialize.version == "working tree"
    with pytest.raises(QueryError, match="unknown table 'connectoin'; did you mean 'connection'"):
        materialize.query_table("connectoin")
    with pytest.raises(QueryError, match="unknown column"):
        materialize.query_table("connection", select_columns=['pre" FROM neuron; --'])
