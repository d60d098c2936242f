"""What a search may be: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectome_db.errors import ConfigError, SourceError
from connectome_db.search import spec as specs
from connectome_db.search.tasks import UNetParameters, absolute, files_of, task_named, unet_config
from tests.networks.test_network_training import cells


def values(**more: Any) -> dict[str, Any]:
    return {
        "task": "affinity",
        "data": "phantom",
        "vary": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "features": [4, 8]},
        "set": {"steps": 3},
        **more,
    }


def test_a_search_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    spec = specs.parse(values(), "here")
    (tmp_path / "search.yaml").write_text(specs.render(spec))
    again = specs.read(tmp_path / "search.yaml")
    assert again == spec
    assert again.digest == spec.digest
    assert specs.parse(values(seed=1), "here").digest != spec.digest


def test_options_say_the_same_as_a_file() -> None:
    told = specs.options(["learning_rate=1e-4:1e-2:log", "features=4,8"], ["steps=3"])
    assert specs.parse({"task": "affinity", "data": "phantom", **told}, "options") == specs.parse(values(), "here")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "afinity"}, r"task 'afinity'.*did you mean 'affinity'"),
        ({"vary": {"learning_rat": [1, 2]}}, r"'learning_rat': task affinity.*did you mean 'learning_rate'"),
        ({"vary": {}}, "at least one parameter to vary"),
        ({"vary": {"depth": {"low": 3, "high": 3}}}, "from 3 to 3 is empty"),
        ({"vary": {"depth": {"low": 3, "high": 2}}}, "from 3 to 2 is empty"),
        ({"vary": {"depth": {"low": 1.5, "high": 3}}}, "whole numbers"),
        ({"vary": {"depth": {"low": 1, "high": 9}}}, r"depth: .*less than or equal to 4, got 9"),
        ({"vary": {"depth": [1]}}, "two different choices"),
        ({"vary": {"depth": [1, 1]}}, "two different choices"),
        ({"vary": {"optimizer": ["adam", "rmsprop"]}}, r"optimizer: .*'adamw', 'adam' or 'sgd', got 'rmsprop'"),
        ({"vary": {"weight_decay": {"low": 0, "high": 1, "log": True}}}, "log wants low > 0"),
        ({"vary": {"depth": {"low": 1, "hihg": 3}}}, r"hihg: no such key; did you mean 'high'"),
        ({"vary": {"depth": 3}}, r"a fixed value belongs under `set`"),
        ({"set": {"features": 3}}, "features: either varied or set"),
        ({"set": {"steps": 0}}, r"steps: .*greater than or equal to 1, got 0"),
        ({"sede": 3}, r"sede: no such key; did you mean 'seed'"),
    ],
)
def test_what_cannot_be_searched_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        specs.parse(values(**changed), "here")


@pytest.mark.parametrize("text", ["depth", "depth=", "depth=1:2:3", "depth=1:2:lin"])
def test_options_that_say_no_range_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted NAME=LOW:HIGH"):
        specs.options([text], [])


def test_parameters_reach_the_training() -> None:
    volume = cells(1)

    class Split:
        train = (volume,)

    chosen = UNetParameters(learning_rate=0.5, optimizer="sgd", batch=2, steps=7, depth=2, features=8, balance=0.1)
    config = unet_config("affinity", Split(), chosen, 3)  # type: ignore[arg-type]
    assert [level.features for level in config.network.levels] == [8, 16]
    assert (config.learning_rate, config.optimizer, config.steps, config.seed) == (0.5, "sgd", 7, 3)
    assert (config.sampling.batch, config.sampling.balance) == (2, 0.1)
    preset = unet_config("affinity", Split(), UNetParameters(), 0)  # type: ignore[arg-type]
    assert [level.features for level in preset.network.levels] == [16, 32, 64, 64]
    with pytest.raises(ValidationError):
        unet_config("affinity", Split(), UNetParameters.model_construct(features=2000), 0)  # type: ignore[arg-type]


def test_data_is_found_wherever_a_trial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("phantom") == "phantom"
    assert absolute("ac3=a") == f"ac3={tmp_path / 'a'}"
    assert absolute("projects=a,b") == f"projects={tmp_path / 'a'},{tmp_path / 'b'}"
    assert files_of("phantom") == []
    with pytest.raises(SourceError, match=r"ts2_z000-139\.h5, which does not exist"):
        files_of(f"fib25={tmp_path}")
    with pytest.raises(ConfigError, match="wanted phantom, ac3=FOLDER"):
        files_of("fantom")


def test_every_task_scores_by_what_it_measures() -> None:
    best = {"f1": 0.5, "precision": 0.4, "recall": 0.75}
    rows = [{"adapted_rand_error": e, "voi_false_splits": 1, "voi_false_merges": 2, "best": best} for e in (0.2, 0.4)]
    for name, score in (("affinity", 0.3), ("cleft", 0.5)):
        task = task_named(name)
        assert task.measures({"scores_on_held_out_data": rows})[task.metric] == pytest.approx(score)
