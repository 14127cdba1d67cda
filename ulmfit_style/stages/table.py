"""The table of stages: what each makes, what it starts from, and how it is listed."""

from ulmfit_style.data import pins
from ulmfit_style.recipe import Config
from ulmfit_style.resolved import Resolved, Stage


def _start(resolved: Resolved) -> str | None:
    """Return what a recipe with random weights starts from."""
    if resolved.config.model.init == "pretrained":
        return None
    return "scratch" if resolved.config.pretrain is None else "pretrain"


STAGES = {
    stage.name: stage
    for stage in (
        Stage("scratch", noun="model with random weights", version=2, is_command=False),
        Stage(
            "pretrain",
            "train a language model from random weights on general text: model=mini_bert pretrain.path=<folder>",
            help_sections=("model", "corpus"),
            noun="pretrained model",
            version=2,
            starts_from=lambda resolved: "scratch",
        ),
        Stage("references", noun="scores of reference models", version=8, is_command=False),
        Stage(
            "adapt",
            "continue the checkpoint's pretraining on your unlabelled text",
            help_sections=("model", "corpus"),
            noun="adapted model",
            version=5,
            starts_from=_start,
        ),
        Stage(
            "finetune",
            "train on the labelled rows, score the test rows, say what adaptation was worth",
            help_sections=("task",),
            noun="fine-tuned model",
            version=8,
            starts_from=lambda resolved: _start(resolved) if resolved.config.adapt is None else "adapt",
        ),
        Stage(
            "ensemble",
            "average the answers of finished models, as one: ensemble.members=[forward,backward]",
            help_sections=("task",),
            noun="ensemble",
            version=1,
        ),
        Stage(
            "evaluate",
            "score a finished model: evaluate.split=validation, evaluate.path=<file>, evaluate.model=<directory>",
            help_sections=("task",),
            noun="scores",
            version=3,
            starts_from=lambda resolved: resolved.answering if resolved.config.evaluate.model is None else None,
        ),
        Stage(
            "export",
            "write the fine-tuned model as ONNX, in full and in 8 bits, and compare their answers: export.to=onnx",
            noun="model as ONNX",
            version=1,
            starts_from=lambda resolved: None if resolved.unchanged("finetune") else "finetune",
        ),
        Stage(
            "predict",
            "answer texts: predict.input=<text, file, or - for standard input> predict.output=<.jsonl, .csv>",
        ),
        Stage("serve", "answer over HTTP, with a page on it: serve.port=8000", help_sections=("predict",)),
        Stage("report", "write an HTML page on the run, or side by side on report.runs=[a,b]"),
        Stage("push", "upload the fine-tuned model to the Hub: hub.repo=<name>", help_sections=("hub",)),
    )
}
"""The stages by name, in the order in which a chain runs them."""


def resolve(config: Config) -> Resolved:
    """Return a config with its data sources and the artefacts of its stages.

    Raises:
        UserError: if the Hub has no such checkpoint or file as the config names, or cannot be reached the first time.
    """
    return Resolved(pins.pinned(config), STAGES)
