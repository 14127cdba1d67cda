"""An option that equals its default is in no fingerprint, so a default that changes raises the version of the results.

`pinned_defaults.json` holds the version of each stage and the defaults of what determines it. After a change it is
written anew: `python tests/test_pinned_defaults.py --record`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ulmfit_style.cli import CONF
from ulmfit_style.config.section import Section, Unhashed
from ulmfit_style.config.training import Adapt, DecoderTokenizer, Finetune, NewTokenizer, Pretrain
from ulmfit_style.recipe import task_class_of
from ulmfit_style.stages.table import STAGES

PINS = Path(__file__).with_name("pinned_defaults.json")

TARGETS = {yaml.safe_load(path.read_text()).get("_target_") for path in CONF.glob("task/*.yaml")}
TASKS = sorted((task_class_of(target) for target in TARGETS if target), key=lambda task: task.__name__)

DETERMINED_BY: dict[str, list[type[Section]]] = {
    "scratch": [NewTokenizer],
    "pretrain": [Pretrain],
    "adapt": [Adapt],
    "finetune": [Finetune, DecoderTokenizer, *TASKS],
    "evaluate": [*TASKS],
}
"""The sections whose options are in the fingerprint of a stage."""


def defaults(section: type[Section]) -> dict[str, Any]:
    fields = section.model_fields.items()
    hashed = [(name, field) for name, field in fields if not field.is_required() and Unhashed not in field.metadata]
    return {f"{section.__name__}.{name}": field.get_default(call_default_factory=True) for name, field in hashed}


def pins() -> dict[str, Any]:
    """Return the version and the defaults of each stage as JSON holds them."""
    stages = {
        stage: {
            "version": STAGES[stage].version,
            **{key: value for kind in kinds for key, value in defaults(kind).items()},
        }
        for stage, kinds in DETERMINED_BY.items()
    }
    return json.loads(json.dumps(stages))


@pytest.mark.parametrize("stage", DETERMINED_BY)
def test_a_default_that_changes_raises_the_version_of_the_results(stage: str):
    pinned, now = json.loads(PINS.read_text())[stage], pins()[stage]
    changed = {name: now[name] for name in now if name in pinned and now[name] != pinned[name]}
    assert not changed or "version" in changed, f"raise the version of {stage} in ulmfit_style/stages/table.yaml"
    assert now == pinned, "write the file anew: python tests/test_pinned_defaults.py --record"


if __name__ == "__main__" and sys.argv[1:] == ["--record"]:
    PINS.write_text(json.dumps(pins(), indent=1) + "\n")
