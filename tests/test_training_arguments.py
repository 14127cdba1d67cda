import fnmatch
import subprocess
import sys
from itertools import chain

import pytest
from transformers import TrainingArguments

from ulmfit_style.cli.compose import compose
from ulmfit_style.config.trainer_options import OURS, WITHOUT_EFFECT, fields
from ulmfit_style.config.trainer_options import problems as problems_with
from ulmfit_style.errors import ConfigError


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value.problems


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_field_of_training_arguments_needs_no_plus(plus: str):
    assert compose([f"{plus}finetune.trainer.max_grad_norm=0.5"]).finetune.trainer == {"max_grad_norm": 0.5}


def test_every_field_that_we_name_is_one_of_the_library():
    assert [name for name in (*chain(*OURS.values()), *WITHOUT_EFFECT) if not fnmatch.filter(fields(), name)] == []


def test_every_option_that_is_to_be_used_instead_is_there():
    words = " ".join(remedy.format(stage=stage) for remedy in OURS for stage in ("adapt", "finetune")).split()
    keys = {word for word in words if word.startswith(("adapt.", "finetune.", "hub."))}
    sections = dict(compose())
    assert len(keys) == 17
    assert [key for key in keys if key.split(".")[1] not in type(sections[key.split(".")[0]]).model_fields] == []


def test_what_the_schema_owns_is_refused_with_the_option_to_use():
    assert problems(
        "finetune.trainer.learning_rate=1e-4",
        "adapt.trainer.num_train_epochs=3",
        "adapt.trainer.lr_scheduler_type=cosine",
    ) == [
        "adapt.trainer.num_train_epochs: cannot be set here; use adapt.epochs",
        "adapt.trainer.lr_scheduler_type: cannot be set here; use adapt.schedule",
        "finetune.trainer.learning_rate: cannot be set here; use finetune.learning_rate",
    ]


def test_an_unknown_field_is_answered_with_the_nearest():
    (problem,) = problems("finetune.trainer.max_grad_nrom=1")
    assert problem.endswith("TrainingArguments has no such field; did you mean 'finetune.trainer.max_grad_norm'?")


def test_a_wrong_type_is_answered_at_the_door():
    assert problems("finetune.trainer.max_grad_norm=high", "adapt.trainer.bf16=1") == [
        "adapt.trainer.bf16=1: should be a valid boolean",
        "finetune.trainer.max_grad_norm=high: should be a valid number",
    ]


def test_a_whole_dict_is_checked_too():
    (problem,) = problems("finetune.trainer={adam_beta2: 0.9, seed: 1}")
    assert problem == "finetune.trainer.seed: cannot be set here; use finetune.seed"


def test_a_token_among_them_is_not_repeated():
    (problem,) = problems("finetune.trainer.hub_token=hf_secret")
    assert "HF_TOKEN" in problem
    assert "hf_secret" not in problem


def test_only_a_field_that_can_change_the_result_enters_the_fingerprint():
    plain = compose().finetune.determinants()
    quiet = compose(["finetune.trainer.report_to=tensorboard", "finetune.trainer.logging_steps=1"]).finetune
    assert quiet.determinants() == plain
    assert compose(["finetune.trainer.max_grad_norm=0.5"]).finetune.determinants() != plain


def test_every_option_of_the_trainer_takes_its_default():
    defaults = vars(TrainingArguments())
    values = {name: defaults[name] for name in fields() if name in defaults}
    wrong = {name: problem for name, problem in problems_with("finetune", values).items() if "should be" in problem}
    assert wrong == {}


def test_what_our_own_schema_refuses_is_answered_without_torch():
    code = "import sys; from ulmfit_style.config.trainer_options import problems; "
    code += "assert problems('adapt', {'seed': 1}); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
