"""Train a model from start to scored card: what `connectome train` calls."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from connectome_db.networks.datasets import Split, TrainingVolume
from connectome_db.networks.evaluate import affinity_scores, cleft_scores
from connectome_db.networks.inference import load_network
from connectome_db.networks.presets import default_training
from connectome_db.networks.registry import CARD, model_id, read_card, write_json
from connectome_db.networks.sampling import Task
from connectome_db.networks.training import TrainConfig, train


def train_and_score(
    split: Split,
    out: Path,
    *,
    task: Task,
    config: TrainConfig | None = None,
    steps: int = 1500,
    seed: int = 0,
    threads: int = 2,
    resume: bool = True,
    initial: Path | None = None,
    show_progress: bool = True,
    lsd: bool = False,
    width: int = 1,
    batch: int = 1,
    helpers: int = 1,
) -> dict[str, Any]:
    """Train on `split.train`, score on `split.test`, write the model folder `out`; return its card.

    `config` None takes the defaults for the task and the voxel size of the data, with `steps` and `seed`. An
    interrupted call with the same arguments goes on where it stopped, unless `resume` is false. `initial`: a model
    folder whose fitting weights are the start, instead of random ones. `lsd`, `width`, `batch`: see
    `presets.default_training`; `helpers`: see `training.train`.
    """
    chosen = config or default_training(
        task, split.train[0].voxel_nm, steps=steps, seed=seed, lsd=lsd, width=width, batch=batch
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not show_progress) as bar:
        row = bar.add_task(f"training {out.name}", total=chosen.steps, loss=float("nan"))

        def advance(done: int, loss: float) -> None:
            bar.update(row, completed=done, loss=loss)

        card = {"source": split.source, "code": git_revision()}
        train(
            chosen,
            split.train,
            out,
            advance,
            threads=threads,
            helpers=helpers,
            resume=resume,
            initial=initial,
            card=card,
        )
    return score(out, split.test)


def score(folder: Path, volumes: Sequence[TrainingVolume]) -> dict[str, Any]:
    """Score a model folder on held-out volumes, write the scores into its card and return the card."""
    network = load_network(folder)
    card = read_card(folder)
    scorer = affinity_scores if card["task"] == "affinity" else cleft_scores
    card["model_id"] = model_id(folder)
    card["scores_on_held_out_data"] = [
        {"name": volume.name, "sha256": volume.digest, **scorer(network, volume)} for volume in volumes
    ]
    write_json(folder / CARD, card)
    return card


def git_revision() -> str:
    """The commit of the code that trains, "+changes" where files differ from it; "unknown" outside a checkout."""
    here = Path(__file__).parent
    kernels = [f"../kernels/{name}.py" for name in ("affinity", "cleft", "normalise", "shape_descriptors")]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)

    try:
        revision, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "*.py", *kernels)
    except FileNotFoundError:
        return "unknown"
    if revision.returncode != 0:
        return "unknown"
    return f"git {revision.stdout.strip()}" + ("+changes" if changes.stdout.strip() else "")
