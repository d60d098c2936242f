"""Which values are tried: a search that was killed goes on as an unbroken one, and what is stored is what came out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from connectome_db.errors import ConfigError, RunError
from connectome_db.search import spec as specs
from connectome_db.search.loop import Outcome, Trial, best, finished, search
from connectome_db.search.spec import Parameters, Spec
from connectome_db.search.tasks import task_named

pytest.importorskip("optuna", reason="the extra `search` is not installed")

SPEC = specs.parse(
    {
        "task": "affinity",
        "data": "phantom",
        "startup": 6,
        "vary": {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "depth": {"low": 1, "high": 4},
            "optimizer": ["adamw", "sgd"],
        },
    },
    "here",
)


def valley(number: int, values: Parameters) -> Outcome:
    """Lowest at a learning rate of 0.003, three levels, adamw."""
    rate = abs(math.log10(float(values["learning_rate"]) / 3e-3))
    score = 0.1 + 0.1 * rate + 0.05 * abs(int(values["depth"]) - 3) + (0.2 if values["optimizer"] == "sgd" else 0)
    return Outcome(score, f"model@{number}", f"experiment-{number}", None, 1.0)


class KilledError(Exception):
    pass


def test_a_killed_search_goes_on_as_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = search(SPEC, tmp_path / "unbroken.db", 14, valley)

    def dies(number: int, values: Parameters) -> Outcome:
        if number == 9:
            raise KilledError
        return valley(number, values)

    broken = tmp_path / "broken.db"
    search(SPEC, broken, 4, valley)
    with pytest.raises(KilledError):
        search(SPEC, broken, 14, dies)
    assert len(finished(SPEC, broken)) == 9  # nothing of the trial that died
    assert search(SPEC, broken, 14, valley) == unbroken
    assert finished(SPEC, broken) == unbroken == finished(SPEC, tmp_path / "unbroken.db")


def test_it_learns_from_scores_and_its_seed_decides(tmp_path: Path) -> None:
    first = search(SPEC, tmp_path / "a.db", 25, valley)
    early, late = first[: SPEC.startup], first[-10:]
    assert sorted(t.score or 9 for t in late)[5] < min(t.score or 9 for t in early)
    other = search(SPEC.model_copy(update={"seed": 1}), tmp_path / "b.db", 3, valley)
    assert [t.parameters for t in other] != [t.parameters for t in first[:3]]
    assert len({str(t.parameters) for t in first[:6]}) == 6  # each trial draws anew


def test_equal_parameters_are_not_trained_again(tmp_path: Path) -> None:
    spec = specs.parse({"task": "affinity", "data": "phantom", "vary": {"depth": [1, 2]}}, "here")
    trained: list[Parameters] = []

    def counts(number: int, values: Parameters) -> Outcome:
        trained.append(values)
        return Outcome(float(values["depth"]), f"model@{number}", f"experiment-{number}")

    done = search(spec, tmp_path / "s.db", 6, counts)
    assert len(trained) == len({str(v) for v in trained}) == 2
    for trial in done:
        source = trial if trial.same_as is None else done[trial.same_as]
        assert source.same_as is None
        assert (trial.parameters, trial.score, trial.experiment) == (
            source.parameters,
            source.score,
            source.experiment,
        )


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
def test_a_failed_trial_has_no_score_and_the_search_goes_on(tmp_path: Path, score: float | None) -> None:
    def fails(number: int, values: Parameters) -> Outcome:
        return Outcome(score, failed=None if score else "the loss is nan") if number == 1 else valley(number, values)

    done = search(SPEC, tmp_path / "s.db", 8, fails)
    assert [t.number for t in done if t.score is None] == [1]
    stored = finished(SPEC, tmp_path / "s.db")
    assert stored[1].score is None
    assert stored[1].failed
    assert best(task_named("affinity"), stored) == min(
        (t for t in stored if t.score is not None), key=lambda t: t.score or 0
    )


def test_the_best_is_the_lowest_error_or_the_highest_score_the_earliest_of_equals() -> None:
    trials = [Trial(s, number=n, parameters={}) for n, s in enumerate((0.4, 0.9, 0.1, 0.1, None, 0.9))]
    for name, number in (("affinity", 2), ("cleft", 1)):
        top = best(task_named(name), trials)
        assert top is not None
        assert top.number == number
    assert best(task_named("cleft"), trials[4:5]) is None


def test_a_cleft_search_goes_up(tmp_path: Path) -> None:
    spec: Spec = SPEC.model_copy(update={"task": "cleft"})
    done = search(spec, tmp_path / "s.db", 25, lambda n, v: replace(valley(n, v), score=1 - (valley(n, v).score or 0)))
    assert sorted(t.score or 0 for t in done[-10:])[5] > max(t.score or 0 for t in done[: spec.startup])


def test_a_database_of_another_search_is_refused(tmp_path: Path) -> None:
    search(SPEC, tmp_path / "s.db", 1, valley)
    other = SPEC.model_copy(update={"seed": 5})
    for use in (lambda: search(other, tmp_path / "s.db", 2, valley), lambda: finished(other, tmp_path / "s.db")):
        with pytest.raises(ConfigError, match=r"other ranges, data or seed than search\.yaml"):
            use()
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(RunError, match="not readable as the database of a search"):
        finished(SPEC, tmp_path / "text.db")
