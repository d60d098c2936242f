"""What `connectome view` serves is what `volumes` reads, nothing else is; its state leads back to regions."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from cloudvolume import CloudVolume
from ruamel.yaml import YAML
from typer.testing import CliRunner

from connectome_db import config, paramsfile, plans, volumes
from connectome_db.cli.main import app
from connectome_db.config import Dataset, Project, RegionSpec
from connectome_db.errors import ConfigError, ConnectomeError, QueryError, RunError
from connectome_db.geometry import box_of
from connectome_db.newproject import model_changes
from connectome_db.regional import neuroglancer, regions
from connectome_db.spec import Volume
from connectome_db.stages.pipeline import STAGES
from connectome_db.viewing import viewer
from connectome_db.viewing.volumeserver import VolumeServer
from tests import tiny_project
from tests.tiny_rows import A1, A2, BOUNDS, VOXEL_NM, a1, a2, a3, b1, b2, b3, s1

BOX = box_of(BOUNDS)
BLOCK_VX = (2, 120, 60)
BASE = "http://127.0.0.1:8901"


def _write(folder: Path, volume: Volume, array: np.ndarray[Any, Any]) -> None:
    layout = volumes.layout(volume, BOX, BLOCK_VX, VOXEL_NM)
    folder.mkdir()
    (folder / "info").write_bytes(volumes.info(layout))
    for core in plans.grid(BOX, BLOCK_VX).cores:
        box = box_of(core)
        for name, data in volumes.encode(layout, box, array[box.slices(BOX.lo)]).items():
            path = folder / volumes.absolute_name(layout, box, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny project with voxels: six supervoxels side by side, ids above 2**53."""
    root = tiny_project.write(tmp_path_factory.mktemp("view") / "p")
    text = paramsfile.render(Dataset(name="tiny", voxel_nm=VOXEL_NM), STAGES, model_changes(STAGES, "phantom"))
    (root / "params.yaml").write_text(text)
    rng = np.random.default_rng(0)
    _write(
        root / "data/render/image",
        Volume(name="image", dtype="uint8", kind="image", doc=""),
        rng.integers(0, 256, BOX.shape).astype(np.uint8),
    )
    ids = np.repeat(np.asarray([a1, a2, a3, b1, b2, b3], dtype=np.uint64), 20)
    labels = np.ascontiguousarray(np.broadcast_to(ids, BOX.shape))
    labels[:, :60, :60] = 0
    kind = Volume(name="supervoxels", dtype="uint64", kind="segmentation", doc="")
    _write(root / "data/segment/supervoxels", kind, labels)
    p = config.load(root, STAGES)
    regions.apply(regions.add(p, "corner", RegionSpec(box_vx=(0, 0, 0, 1, 64, 60), note="weak: osmium")))
    p = config.load(root, STAGES)
    regions.apply(regions.add(p, "odd", RegionSpec(box_nm=(12.5, 0, 333.3, 80, 100.7, 960))))
    return config.load(root, STAGES)


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[VolumeServer]:
    with VolumeServer(viewer.open_view(project).folders) as running:
        yield running


def ask(server: VolumeServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request with the path exactly as given; clients would tidy it."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        connection.putrequest(method, path)
        for key, value in headers.items():
            connection.putheader(key, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def chunk(project: Project) -> str:
    folder = project.data("segment") / "supervoxels"
    return next(str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "info")


@pytest.mark.parametrize(
    ("name", "stage", "volume"), [("image", "render", "image"), ("supervoxels", "segment", "supervoxels")]
)
def test_other_readers_see_over_http_what_is_on_disk(
    project: Project, server: VolumeServer, name: str, stage: str, volume: str
) -> None:
    folder = project.data(stage) / volume
    for level in range(len(volumes.open_info(folder).scales)):
        truth = volumes.read(folder, volumes.open_info(folder).scales[level].bounds, level)
        store = {"driver": "http", "base_url": server.url, "path": f"/{name}/"}
        spec = {"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": level}
        seen = tensorstore.open(spec, read=True, open=True).result()[..., 0].T.read().result()
        np.testing.assert_array_equal(seen, truth)
        cloud = CloudVolume(
            f"precomputed://{server.url}/{name}", mip=level, fill_missing=True, progress=False, cache=False
        )
        np.testing.assert_array_equal(np.asarray(cloud[:])[..., 0].T, truth)
    assert truth.any()


def test_a_chunk_is_its_file_whole_or_in_part(project: Project, server: VolumeServer) -> None:
    path = chunk(project)
    data = (project.data("segment") / "supervoxels" / path).read_bytes()
    status, headers, body = ask(server, f"/supervoxels/{path}")
    assert (status, body, headers["access-control-allow-origin"]) == (200, data, "*")
    ranges = {"bytes=3-9": data[3:10], "bytes=5-": data[5:], "bytes=-7": data[-7:], "bytes=0-99999999": data}
    for wanted, found in ranges.items():
        status, headers, body = ask(server, f"/supervoxels/{path}", Range=wanted)
        assert (status, body) == (206, found), wanted
        first = int(headers["content-range"].removeprefix("bytes ").split("-")[0])
        assert data[first : first + len(found)] == found
        assert headers["content-range"].endswith(f"/{len(data)}")
    status, headers, body = ask(server, f"/supervoxels/{path}", Range=f"bytes={len(data)}-")
    assert (status, headers["content-range"], body) == (416, f"bytes */{len(data)}", b"")
    assert ask(server, f"/supervoxels/{path}", Range="lines=1-2")[::2] == (200, data)
    status, headers, body = ask(server, f"/supervoxels/{path}", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(data)), b"")


def test_a_browser_may_ask_from_another_origin(server: VolumeServer) -> None:
    origin = "https://neuroglancer-demo.appspot.com"
    status, headers, _ = ask(
        server, "/image/info", "OPTIONS", Origin=origin, **{"Access-Control-Request-Headers": "range"}
    )
    assert (status, headers["access-control-allow-origin"]) == (204, "*")
    assert "range" in headers["access-control-allow-headers"].lower()
    assert headers["access-control-allow-private-network"] == "true"
    # A chunk of background was not written; the browser must be let see that.
    status, headers, _ = ask(server, "/image/8_8_40/0-1_0-1_0-1")
    assert (status, headers["access-control-allow-origin"]) == (404, "*")


def test_nothing_but_the_volumes_is_served(project: Project, server: VolumeServer) -> None:
    scale = chunk(project).split("/")[0]
    (project.data("render") / "image" / "secret").write_text("x")
    assert (project.data("render") / "image_plane.parquet").is_file()
    paths = """
        / /params.yaml /image /image/ /image/secret /image/SCALE /image/SCALE/ //etc/passwd /image//etc/passwd
        /image/../image_plane.parquet /image/%2e%2e/image_plane.parquet /image/..%2fimage_plane.parquet
        /image/SCALE/../../image_plane.parquet /image/SCALE/..%5c..%5cinfo /image/SCALE/%2fetc%2fpasswd
        /../../params.yaml /image/info/ /image/info%00 /mask/info /image/SCALE/0-1_0-1_0-1/../../secret
        /image/./info http://127.0.0.1/etc/passwd
    """.replace("SCALE", scale).split()
    assert len(paths) > 20
    for path in paths:
        assert ask(server, path)[0] in {400, 404}, path
    assert ask(server, "/image/info")[0] == 200
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/image/info", method)[0] == 501
    host, port = server.url.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"GET /image/../../../params.yaml HTTP/1.0\r\n\r\n")
        assert b" 404 " in raw.recv(4096)


def test_a_port_that_is_taken_is_said(project: Project, server: VolumeServer) -> None:
    with pytest.raises(RunError, match=r"cannot be served on \(Address already in use\)"):
        VolumeServer({}, int(server.url.rsplit(":", 1)[1]))


def by_name(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in state["layers"]}


def test_an_object_is_its_supervoxels_in_one_colour_with_its_synapses(project: Project) -> None:
    view = viewer.open_view(project, objects=[A2, A1])
    layers = by_name(json.loads(json.dumps(view.state(BASE))))
    labels = layers["supervoxels"]
    assert labels["source"] == f"precomputed://{BASE}/supervoxels"
    assert labels["segments"] == [str(s) for s in (a2, a3, b3, a1, b1)]  # members, as the tiny project says
    colours = labels["segmentColors"]
    assert colours[str(a2)] == colours[str(a3)] == colours[str(b3)] != colours[str(a1)] == colours[str(b1)]
    assert len(layers["synapses"]["annotations"]) == 4
    assert len(by_name(viewer.open_view(project, objects=[b2]).state(BASE))["synapses"]["annotations"]) == 1
    assert "synapses" not in by_name(viewer.open_view(project).state(BASE))


def test_a_synapse_is_looked_at_with_its_two_objects(project: Project) -> None:
    view = viewer.open_view(project, synapse=s1)
    (row,) = [s for s in view.synapses if s["synapse"] == s1]
    assert set(view.objects) == {A1, A2}
    point = next(p for p in by_name(view.state(BASE))["synapses"]["annotations"] if p["id"] == str(s1))
    assert point["point"] == [row["x_vx"] + 0.5, row["y_vx"] + 0.5, row["z_vx"] + 0.5]
    at = view.state(BASE)["position"]
    assert all(abs(a - b) <= 0.5 for a, b in zip(at, point["point"], strict=True))


def test_where_it_looks(project: Project) -> None:
    assert viewer.open_view(project, at=(1, 40, 30)).state(BASE)["position"] == [30.5, 40.5, 1.5]
    assert viewer.open_view(project, region="corner").state(BASE)["position"] == [30, 32, 0.5]
    whole = viewer.open_view(project).state(BASE)
    assert whole["position"] == [60, 60, 0.5]
    assert whole["dimensions"] == {"x": [8e-9, "m"], "y": [8e-9, "m"], "z": [4e-8, "m"]}
    assert whole["crossSectionScale"] * viewer.SCREEN_PX >= 120


MISTAKES = {
    "object": ({"objects": [7]}, "no object 7"),
    "supervoxel": ({"objects": [a3]}, f"no object {a3}: it is a supervoxel of object {A2}"),
    "synapse": ({"synapse": 7}, "no synapse 7"),
    "region": ({"region": "cornr"}, "no region 'cornr' at working tree; did you mean 'corner'"),
    "place": ({"at": (5, 40, 30)}, "outside the volume"),
}


@pytest.mark.parametrize(("wanted", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_is_not_there_is_said(project: Project, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConnectomeError, match=message):
        viewer.open_view(project, **wanted)


def test_before_anything_was_run_there_is_nothing_to_see(tmp_path: Path) -> None:
    text = paramsfile.render(Dataset(name="tiny", voxel_nm=VOXEL_NM), STAGES, {})
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(QueryError, match="stage render has not been run"):
        viewer.open_view(config.load(tmp_path, STAGES))


def test_regions_go_out_as_boxes_and_come_back_the_same(project: Project, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    done = CliRunner().invoke(app, ["view", "--no-serve", "--state", str(state), "-C", str(project.root)])
    assert done.exit_code == 0, done.output
    old = regions.regions(project)
    with pytest.raises(ConfigError, match="all its boxes are regions already"):
        neuroglancer.choose(
            neuroglancer.read_boxes(str(state)), None, {n: r.exact_nm(VOXEL_NM) for n, r in old.items()}
        )
    other = tmp_path / "q"
    other.mkdir()
    (other / "params.yaml").write_text(paramsfile.render(Dataset(name="q", voxel_nm=VOXEL_NM), STAGES, {}))
    link = done.stdout.split()[0]
    for name, source in (("corner", str(state)), ("odd", link)):
        words = ["regions", "add", name, "--from-neuroglancer", source, "--annotation", name, "-C", str(other)]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.exception
    new = regions.regions(config.load(other, STAGES))
    assert {n: r.box for n, r in new.items()} == {n: r.box for n, r in old.items()}
    assert new["odd"].spec.box_nm == old["odd"].spec.box_nm
    assert new["corner"].spec.note == "corner: weak: osmium"


def test_the_command_serves_and_prints_a_link_that_holds_the_state(project: Project, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    words = ["view", "--at", "1,40,30", "--object", str(A1), "--state", str(state), "-C", str(project.root)]
    code = "from connectome_db.cli.main import run; run()"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout
            link = running.stdout.readline().strip()
            page, _, fragment = link.partition("#!")
            assert page == "https://neuroglancer-demo.appspot.com/"
            shown = json.loads(urllib.parse.unquote(fragment))
            assert shown == json.loads(state.read_text())
            address = by_name(shown)["image"]["source"].removeprefix("precomputed://").removesuffix("/image")
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
            connection.request("GET", "/state.json")
            assert json.loads(connection.getresponse().read()) == shown
            connection.request("GET", "/image/info")
            assert connection.getresponse().read() == (project.data("render") / "image" / "info").read_bytes()
        finally:
            running.terminate()


def test_a_link_too_long_for_a_browser_names_the_served_state(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = viewer.open_view(project, objects=[A1])
    assert neuroglancer.read_boxes(view.link(BASE, served=True))[0].id == "corner"
    monkeypatch.setattr(viewer, "LONGEST_LINK", 100)
    assert view.link(BASE, served=True) == f"{viewer.VIEWER}#!{BASE}/state.json"
    assert view.link(BASE, served=False).count("%22") > 20


def test_a_params_file_with_an_invalid_region_is_said(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"regions.a: give exactly one"):
        regions.regions_of("regions: {a: {note: x}}", VOXEL_NM)
    with pytest.raises(ConfigError, match=r"params.yaml: regions.a: Extra inputs"):
        regions.regions_of("regions: {a: {box: [1]}}", VOXEL_NM)
    assert YAML(typ="safe").load(regions.read_text(project.root))["regions"].keys() == {"corner", "odd"}
