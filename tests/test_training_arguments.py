import fnmatch

import pytest
from transformers import TrainingArguments

from ulmfit_style.config.trainer_options import OURS, SET_BY_THE_STAGE, fields, problems
from ulmfit_style.recipe import options
from ulmfit_style.tasks.base import Task


def test_every_field_that_we_name_is_one_of_the_library():
    named = (*OURS, *SET_BY_THE_STAGE)
    assert [name for name in named if not fnmatch.filter(fields(), name)] == []


def test_every_option_that_is_to_be_used_instead_is_there():
    words = " ".join(remedy.format(stage="finetune") for remedy in OURS.values()).split()
    keys = {word for word in words if word.startswith(("finetune.", "hub."))}
    assert len(keys) == 8
    assert keys <= options(Task).keys()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("learning_rate", 1e-4, "learning_rate: cannot be set here; use finetune.learning_rate"),
        ("save_steps", 1, "save_steps: cannot be set here; the stage sets it"),
        (
            "max_nrom",
            1,
            "max_nrom: TrainingArguments has no such field; did you mean 'finetune.trainer.max_grad_norm'?",
        ),
        ("max_grad_norm", "high", "max_grad_norm=high: should be a valid number"),
    ],
)
def test_a_mistake_is_told(name: str, value: object, problem: str):
    assert problems("finetune", {"adam_beta2": 0.9, name: value}) == [f"finetune.trainer.{problem}"]


def test_every_option_of_the_trainer_takes_its_default():
    defaults = vars(TrainingArguments())
    values = {name: defaults[name] for name in fields() if name in defaults}
    assert not [problem for problem in problems("finetune", values) if "should be" in problem]
