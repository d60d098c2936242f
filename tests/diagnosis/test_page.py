"""The page of quality: what it says is what the tables hold, it needs nothing from outside, and data stays data."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config
from connectome_db.cli.main import app
from connectome_db.config import Project
from connectome_db.diagnosis.pages import dataset_page, flag_list, measured, style, worst_places
from connectome_db.errors import QueryError
from connectome_db.regional import regions
from connectome_db.revisions import open_revision
from tests.diagnosis import quality_project
from tests.diagnosis.html_facts import Facts

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return quality_project.write(tmp_path_factory.mktemp("qa"))


@pytest.fixture(scope="module")
def written(project: Project) -> str:
    done = CliRunner().invoke(app, ["qa", "-C", str(project.root)])
    assert done.exit_code == 0, done.output
    return (project.root / "qa" / "report.html").read_text()


@pytest.fixture(scope="module")
def facts(written: str) -> Facts:
    return Facts(written)


def test_it_asks_for_nothing_from_outside(written: str, facts: Facts):
    assert facts.requests() == []
    assert "url(" not in style.CSS
    assert "@import" not in style.CSS
    assert not facts.all("link")
    policy = facts.all("meta", http_equiv="Content-Security-Policy")[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert [a["href"][:8] for a in facts.all("a") if not a["href"].startswith("#")] == ["https://"] * 4


def test_every_layer_has_its_worst_severity(facts: Facts):
    status = {a["data-level"]: a["data-status"] for a in facts.all("li") if "data-status" in a}
    assert status == {"L1": "serious", "L2": "no flags", "L3": "no flags", "L4": "no flags", "L5": "warning"}


def test_every_metric_has_a_map_and_flags_are_told(facts: Facts):
    assert {a["data-metric"] for a in facts.all("article") if "data-metric" in a} == set(quality_project.USUAL)
    assert [a["data-severity"] for a in facts.all("tr") if "data-severity" in a] == [
        "serious", "warning", "info", "info"
    ]  # fmt: skip
    assert "contrast of membranes is 40 % lower in the corner" in facts.text
    assert "25 % of the measured volume" in facts.text
    assert "a-model@12" in facts.text


def test_it_is_well_formed_and_can_be_read_aloud(facts: Facts):
    assert facts.unbalanced == []
    ids = [a["id"] for _, a in facts.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in facts.all("a") if a["href"].startswith("#")} <= set(ids)
    levels = [int(n[1]) for n, _ in facts.elements if re.fullmatch("h[1-6]", n)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(a.get("alt") for a in facts.all("img"))
    assert len(facts.all("svg")) == len(facts.all("svg", role="img"))


def test_text_from_data_stays_text(written: str, facts: Facts):
    assert len(facts.all("script")) == 1
    assert not [a for _, a in facts.elements if any(k.startswith("on") for k in a)]
    assert all(a["src"].startswith("data:image/jpeg") for a in facts.all("img"))
    assert quality_project.EVIL in "".join(facts.words)
    assert "corner &amp; co" in written


def test_commands_survive_the_shell(project: Project):
    quality = measured.read(open_revision(project.root))
    assert quality.flags is not None
    evil = next(f for f in quality.flags if "script" in f.name)
    add = shlex.split(flag_list.commands(evil, quality)[1])
    assert add[:3] == ["connectome", "regions", "add"]
    assert add[4:] == ["--from-flag", evil.name]
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", add[3])


@pytest.mark.usefixtures("written")
def test_its_flags_become_regions(project: Project):
    rows = json.loads((project.root / "qa" / "flags.json").read_text())
    assert [set(r) for r in rows] == [{"flag", "box_nm", "severity", "evidence"}] * 4
    spec = regions.read_flag(project, "raw_membrane_contrast/trend/1")
    name = flag_list.region_name("raw_membrane_contrast/trend/1")
    change = regions.add(config.load(project.root, project.stages), name, spec)
    assert spec.box_nm == quality_project.CORNER_NM
    assert "z 0:16, y 128:256, x 128:256 voxels" in change.done[0]


def test_the_worst_places_lie_in_the_corner_and_apart(project: Project):
    places = worst_places.worst_places(measured.read(open_revision(project.root)))
    assert [quality_project.in_corner(p.box_nm) for p in places[:4]] == [True] * 4
    assert [p.score for p in places] == sorted((p.score for p in places), reverse=True)
    assert {level for level, _, _ in places[0].reasons} >= {"L1", "L2"}
    for k, a in enumerate(places):
        for b in places[:k]:
            apart = [abs(a.box_nm[i] - b.box_nm[i]) for i in range(3)]
            assert apart[0] > 120 or apart[1] > 512 or apart[2] > 512


def test_without_measures_it_says_so(tmp_path: Path, project: Project):
    root = tmp_path / "bare"
    (root / "data").mkdir(parents=True)
    shutil.copyfile(project.root / "params.yaml", root / "params.yaml")
    done = CliRunner().invoke(app, ["qa", "-C", str(root)])
    assert done.exit_code == 0, done.output
    facts = Facts((root / "qa/report.html").read_text())
    assert {a["data-status"] for a in facts.all("li") if "data-status" in a} == {"not measured"}
    assert "nothing can be said about the quality" in facts.text
    assert not (root / "qa/flags.json").exists()
    assert "was not measured" in (root / "qa/release-note.md").read_text()


def test_measures_without_a_search_are_not_called_good(tmp_path: Path):
    p = quality_project.write(tmp_path, flagged=False)
    quality = measured.read(open_revision(p.root))
    facts = Facts(dataset_page.quality_page(p, quality))
    assert {a["data-status"] for a in facts.all("li") if "data-status" in a} == {"not searched"}
    assert "stage flag has no data" in dataset_page.headline(quality)


def test_a_table_of_another_version_is_refused(tmp_path: Path):
    p = quality_project.write(tmp_path)
    path = p.data("flag") / "flag.parquet"
    rows = pq.read_table(path).drop_columns(["kind"])
    path.unlink()
    pq.write_table(rows, path)
    with pytest.raises(QueryError, match="no column kind"):
        measured.read(open_revision(p.root))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme: str):
    """WCAG 2.1: contrast of at least 4.5 for text."""
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", style.CSS)
    text = next(b for b in blocks if (b.startswith("--bg:#fff")) == (theme == "light"))
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})", text))

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
        parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        r, g, b = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for name in ("text", "muted", "accent", "serious", "warning", "info", "good"):
        for ground in ("bg", "card"):
            a, b = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (theme, name, ground)


def _browse(page_: Path, folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """(What a browser without a network prints, who asked for addresses according to its log)."""
    log = folder / "net.json"
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
        "--window-size=1000,1400", *arguments, page_.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, set(re.findall(r'"initiator":"([^"]*)"', log.read_text())) - {"not an origin"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.usefixtures("written")
def test_a_browser_without_a_network_shows_it_and_runs_its_script_alone(project: Project, tmp_path: Path):
    dom, asked = _browse(project.root / "qa" / "report.html", tmp_path, "--dump-dom")
    facts = Facts(dom)
    root = facts.all("html")[0]
    assert root.get("data-ready") == "1"
    assert "data-evil" not in root
    assert "4 shown" in facts.text
    assert asked == set()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.usefixtures("written")
def test_a_browser_draws_it(project: Project, tmp_path: Path):
    picture = tmp_path / "page.png"
    _browse(project.root / "qa" / "report.html", tmp_path, f"--screenshot={picture}")
    shown = mpl.image.imread(picture)
    assert shown.shape[:2] == (1400, 1000)
    # Something is drawn in every part of the window, and it is not all of one colour.
    assert all(len(np.unique(part.reshape(-1, part.shape[-1]), axis=0)) > 20 for part in np.array_split(shown, 4))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_page_that_asks_would_be_noticed(tmp_path: Path):
    asking = tmp_path / "asking.html"
    asking.write_text('<img src="http://example.org/a.png">')
    assert _browse(asking, tmp_path, "--dump-dom")[1] != set()
    assert Facts(asking.read_text()).requests() == ["img src=http://example.org/a.png"]
