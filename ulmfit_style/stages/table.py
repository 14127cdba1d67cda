"""The table of stages, `table.yaml`: what each makes, and how it is listed."""

from pathlib import Path

import yaml

from ulmfit_style.data import pins
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Resolved, Stage

TABLE = Path(__file__).with_suffix(".yaml")
STAGES = {name: Stage(name, **row) for name, row in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items()}
"""The stages by name, in the order in which a chain runs them."""


def resolve(config: Config) -> Resolved:
    """Return a config with its data sources and the artefacts of its stages.

    Raises:
        UserError: if the Hub has no such checkpoint or file as the config names, or cannot be reached the first time.
    """
    return Resolved(pins.pinned(config), STAGES)
