"""The search itself: which values to try next. The one door to Optuna: `pip install connectome-db[search]`.

Values are suggested by a tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
Optimization"). The database holds finished trials only. A suggestion is a function of the seed, the trial's number and
the finished trials, so a search that was killed goes on as if it had not been: the trial it was at is suggested again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectome_db.errors import ConfigError, RunError
from connectome_db.search.spec import Choices, Parameters, Scalar, Spec, is_whole
from connectome_db.search.tasks import Task, task_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.distributions import BaseDistribution
    from optuna.study import Study

STUDY = "search"


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    score: float | None
    """None: the training failed, `failed` says why."""
    model_id: str | None = None
    experiment: str | None = None
    failed: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial(Outcome):
    """A finished trial."""

    number: int = 0
    parameters: Mapping[str, Scalar] | None = None
    same_as: int | None = None
    """The earlier trial with equal parameters, whose outcome this repeats."""


Evaluate = Callable[[int, Parameters], Outcome]
"""(trial number, values of the varied parameters) -> outcome."""


def search(
    spec: Spec,
    storage: Path,
    trials: int,
    evaluate: Evaluate,
    told: Callable[[Trial], None] = lambda _: None,
) -> list[Trial]:
    """Go on until `storage` (an SQLite file, made when absent) holds `trials` trials; returns all of them.

    Parameters that were tried before are not trained again: the outcome is repeated. `told` hears of each new trial.
    Raises ConfigError when the storage was made for another search.
    """
    with _optuna() as optuna:
        study = _study(optuna, spec, storage, create=True)
        ranges = {name: _distribution(optuna, spec, name) for name in spec.vary}
        done = _trials(study)
        while len(done) < trials:
            number = len(done)
            values = _suggest(optuna, study, spec, ranges, number)
            earlier = next((t for t in done if t.parameters == values), None)
            outcome = evaluate(number, dict(values)) if earlier is None else earlier
            trial = Trial(
                outcome.score if outcome.score is not None and math.isfinite(outcome.score) else None,
                outcome.model_id,
                outcome.experiment,
                outcome.failed,
                outcome.seconds if earlier is None else 0.0,
                number=number,
                parameters=values,
                same_as=None if earlier is None else (earlier.number if earlier.same_as is None else earlier.same_as),
            )
            _enter(optuna, study, ranges, trial)
            done.append(trial)
            told(trial)
        return done


def finished(spec: Spec, storage: Path) -> list[Trial]:
    """The trials that `storage` holds, by number; none when it does not exist."""
    if not storage.is_file():
        return []
    with _optuna() as optuna:
        return _trials(_study(optuna, spec, storage, create=False))


def best(task: Task, trials: list[Trial]) -> Trial | None:
    """The trial with the best score, the earliest of equals; None without a score."""
    scored = [t for t in trials if t.score is not None]
    sign = 1 if task.minimise else -1
    return min(scored, key=lambda t: (sign * (t.score or 0.0), t.number), default=None)


def sampler_seed(seed: int, number: int) -> int:
    """The seed of one suggestion: of the search's seed and the trial's number only."""
    return int.from_bytes(hashlib.sha256(f"suggestion\0{seed}\0{number}".encode()).digest()[:4], "little")


@contextmanager
def _optuna() -> Iterator[Any]:
    """The library, quiet. Raises ConfigError when it is not installed."""
    try:
        import optuna  # noqa: PLC0415 an extra, and slow to import
    except ModuleNotFoundError:
        raise ConfigError("optuna is not installed: pip install 'connectome-db[search]'") from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _study(optuna: Any, spec: Spec, storage: Path, *, create: bool) -> Study:
    direction = "minimize" if task_named(spec.task).minimise else "maximize"
    try:
        url = f"sqlite:///{storage.resolve()}"
        if create:
            study = optuna.create_study(study_name=STUDY, storage=url, direction=direction, load_if_exists=True)
        else:
            study = optuna.load_study(study_name=STUDY, storage=url)
        made_for = study.user_attrs.get("search")
        if made_for is None and create:
            study.set_user_attr("search", spec.digest)
    except Exception as e:
        # Optuna lets through what SQLAlchemy, Alembic and sqlite3 raise: there is no common base to name.
        raise RunError(f"{storage}: not readable as the database of a search ({e}); remove it to make it anew") from e
    if made_for not in (None, spec.digest):
        raise ConfigError(
            f"{storage}: its trials are of other ranges, data or seed than search.yaml says now; set search.yaml back, "
            "or make another search"
        )
    return study  # type: ignore[no-any-return]


def _distribution(optuna: Any, spec: Spec, name: str) -> BaseDistribution:
    given, of = spec.vary[name], optuna.distributions
    if isinstance(given, Choices):
        found = of.CategoricalDistribution(given.choices)
    elif is_whole(task_named(spec.task), name):
        found = of.IntDistribution(int(given.low), int(given.high), log=given.log)
    else:
        found = of.FloatDistribution(float(given.low), float(given.high), log=given.log)
    return found  # type: ignore[no-any-return]


def _suggest(optuna: Any, study: Study, spec: Spec, ranges: Mapping[str, BaseDistribution], number: int) -> Parameters:
    """The values of the next trial, from a copy of the study: nothing of it is stored before it is done."""
    sampler = optuna.samplers.TPESampler(seed=sampler_seed(spec.seed, number), n_startup_trials=spec.startup)
    copy = optuna.create_study(sampler=sampler, direction=study.direction)
    copy.add_trials(study.trials)
    return {name: copy_value(value) for name, value in copy.ask(dict(ranges)).params.items()}


def copy_value(value: Any) -> Scalar:
    """A plain number or text, whatever the sampler's library made it."""
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() and not isinstance(value, float) else float(value)


def _enter(optuna: Any, study: Study, ranges: Mapping[str, BaseDistribution], trial: Trial) -> None:
    state = optuna.trial.TrialState
    study.add_trial(
        optuna.trial.create_trial(
            params=dict(trial.parameters or {}),
            distributions=dict(ranges),
            value=trial.score,
            state=state.FAIL if trial.score is None else state.COMPLETE,
            user_attrs={
                "model_id": trial.model_id,
                "experiment": trial.experiment,
                "failed": trial.failed or (None if trial.score is not None else "the score is not a finite number"),
                "seconds": trial.seconds,
                "same_as": trial.same_as,
            },
        )
    )


def _trials(study: Study) -> list[Trial]:
    return [
        Trial(score=t.value, number=t.number, parameters=dict(t.params), **t.user_attrs)
        for t in sorted(study.trials, key=lambda t: t.number)
    ]
