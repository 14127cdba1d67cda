"""Hydra's own multirun over the chain: one trial per point of a grid, over shared artefacts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.table import Table

from ulmfit_style import lineage
from ulmfit_style.config import CONF, compose, from_omegaconf, grid, normalised
from ulmfit_style.console import say, show
from ulmfit_style.errors import UserError
from ulmfit_style.run import METRICS, read_json

STAGES = ("adapt", "finetune")


def run(overrides: Sequence[str]) -> None:
    """Run `adapt finetune` at every point of the grid that comma-separated overrides span, and print a table.

    Trials share every artefact that their overrides leave alone, so a sweep of `finetune.*` adapts once. They are
    ranked by the validation rows; the test rows stay out of the choice.

    Raises:
        UserError: if nothing is swept, or any point of the grid is wrong: before the first trial starts.
    """
    overrides = ["compare=false", *overrides]
    points = grid(overrides)
    if len(points) < 2:
        raise UserError("sweep: give an option several values, for example finetune.learning_rate=2e-5,5e-5,1e-4")
    configs = [compose(point) for point in points]
    through_hydra(STAGES, ["--multirun", *overrides])

    # Content-addressed artefacts need no record of what a trial made, whichever launcher ran it.
    directories = [lineage.finetune(config).directory for config in configs]
    results = [read_json(directory / METRICS)["validation"] for directory in directories]
    metric = lineage.required_task(configs[0]).metric
    ranking = sorted(range(len(points)), key=lambda trial: -results[trial]["scores"][metric])
    table = Table(title=f"{len(points)} trials, best first by the validation rows", title_justify="left")
    for heading in ("trial", f"validation {metric}", "95 % interval", "artefact"):
        table.add_column(heading)
    for trial in ranking:
        swept = " ".join(override for override in points[trial] if override not in overrides)
        low, high = results[trial]["interval"]
        score = f"{results[trial]['scores'][metric]:.3f}"
        table.add_row(swept, score, f"{low:.3f} to {high:.3f}", str(directories[trial]))
    say()
    show(table)
    winner = " ".join(override for override in points[ranking[0]] if override != overrides[0])
    say(f"The best one on the test rows, beside the references: make adapt finetune {winner}")


def through_hydra(stages: Sequence[str], arguments: Sequence[str]) -> None:
    """Run stages by Hydra's own entry point, for its flags: `--multirun`, `--cfg job`, `--info`, `--config-dir` ...

    Raises:
        UserError: from a wrong override, or from a trial.
    """
    import hydra
    from hydra import initialize_config_dir
    from omegaconf import DictConfig

    def job(values: DictConfig) -> None:
        from ulmfit_style import launch

        launch.run(from_omegaconf(values), stages)

    is_override = [not argument.startswith("-") and ("=" in argument or "~" in argument) for argument in arguments]
    flags = [argument for argument, override in zip(arguments, is_override, strict=True) if not override]
    overrides = [argument for argument, override in zip(arguments, is_override, strict=True) if override]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = normalised(overrides)
    # Errors reach `main` as they are, instead of being printed by Hydra.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *flags, *overrides]
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(job)()
