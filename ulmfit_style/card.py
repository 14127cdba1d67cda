"""The model card that goes to the Hub with a model: what its own files say, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ulmfit_style.config import Config

PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
}
"""What the Hub calls a model, by the end of its class's name; it is the transformers pipeline that runs it, mostly."""

WITHOUT_PIPELINE = ("question-answering",)
"""Those whose pipeline transformers 5 has taken out."""

USE_TRANSFORMERS = """\
With transformers{trusting}:

```python
from transformers import pipeline

run = {call}
print(run({text}))
```"""

TRUSTING = "; `trust_remote_code=True` lets it run `pooling.py` of this repository, which is the head"

USE_ULMFIT_STYLE = """\
With ulmfit-style, which reads long texts as in training:

```python
from ulmfit_style import load

model = load("{repo}")
print(model({text}))
```"""

ORIGIN = """\
## How it was made

By ulmfit-style, as `{stage}-{fingerprint}`, in {seconds:,.0f} seconds ({machine}); finished {finished}.
`recipe.yaml` holds every option, `metrics.json` every score.

Versions: {versions}."""


def write(
    repo: str, manifest: Mapping[str, Any], recipe: Config, metrics: Mapping[str, Any], model_config: Mapping[str, Any]
) -> str:
    """Return the card, metadata and Markdown, of the model that `repo` (account/name) is to hold.

    Everything in `recipe` may be told: the caller has taken private paths out of it.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    name = repo.rpartition("/")[2]
    tag = pipeline_tag(model_config)
    data_name = PurePosixPath(recipe.task.path.train).name if recipe.task is not None else ""
    results = [
        EvalResult(
            task_type=tag or "other",
            dataset_type=data_name,
            dataset_name=data_name,
            dataset_split="test",
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in metrics.get("test", {}).get("scores", {}).items()
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=tag,
        base_model=recipe.model.checkpoint if is_hub_id(recipe.model.title()) else None,
        tags=["ulmfit-style"],
        model_name=name,
        eval_results=results or None,
    )
    versions = ", ".join(f"{library} {number}" for library, number in manifest["versions"].items())
    sections = [
        f"# {name}",
        _summary(manifest, recipe, metrics, tag),
        _table(["", ""], _recipe(manifest, recipe, metrics)),
        *_scores(metrics),
        *_use(repo, manifest, model_config),
        ORIGIN.format_map({**manifest, "versions": versions}),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"))


def pipeline_tag(model_config: Mapping[str, Any]) -> str | None:
    """Return what the Hub calls the model of a config.json, or None for a head that it has no word for."""
    architecture = str(model_config["architectures"][0])
    return next((tag for ending, tag in PIPELINES.items() if architecture.endswith(ending)), None)


def pipeline_call(model_config: Mapping[str, Any], repo: str) -> str | None:
    """Return what to type for the pipeline of the model in `repo`, or None for a head that no pipeline runs."""
    tag = pipeline_tag(model_config)
    more = ", trust_remote_code=True" if _brings_code(model_config) else ""
    more += ', aggregation_strategy="first"' if tag == "token-classification" else ""  # or it would tell tokens
    return None if tag in (None, *WITHOUT_PIPELINE) else f'pipeline("{tag}", model="{repo}"{more})'


def _brings_code(model_config: Mapping[str, Any]) -> bool:
    """Tell whether transformers needs a file of code that lies beside the weights."""
    return "auto_map" in model_config


def is_hub_id(checkpoint: str) -> bool:
    """Tell whether a checkpoint is spelled as the Hub spells models: neither a path nor `package:<folder>`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its __all__ is computed

    try:
        validate_repo_id(checkpoint)
    except HFValidationError:
        return False
    return True


def _adapted(manifest: Mapping[str, Any]) -> bool:
    """Tell whether the model, or the one that it was fine-tuned from, was adapted."""
    return manifest["stage"] == "adapt" or "adapt" in manifest["determinants"]["init"]


def _summary(manifest: Mapping[str, Any], recipe: Config, metrics: Mapping[str, Any], tag: str | None) -> str:
    steps = ["pretrained from random weights"] if recipe.model.init == "scratch" and recipe.pretrain is not None else []
    steps += [f"adapted to {_corpus(recipe)}"] if _adapted(manifest) else []
    if recipe.task is not None and "train" in metrics:
        steps.append(f"fine-tuned on {metrics['train']['rows']:,} labelled rows of `{recipe.task.path}`")
    return f"A {tag or 'transformers'} model: `{recipe.model.title()}`, {' and '.join(steps)}."


def _corpus(recipe: Config) -> str:
    if recipe.corpus.path is not None:
        return f"the texts of {', '.join(f'`{path}`' for path in recipe.corpus.path)}"
    return "the unlabelled texts of its task's training split"


def _recipe(manifest: Mapping[str, Any], recipe: Config, metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return what was done to the checkpoint, as rows of two cells."""
    adapt, finetune = recipe.adapt, recipe.finetune
    long_texts = "" if recipe.task is None else recipe.task.long_texts
    rows = [["Base checkpoint", f"`{recipe.model.title()}`"]]
    if recipe.model.decoder is not None and manifest["stage"] == "finetune":
        rows.append(["Decoder", f"`{recipe.model.decoder}`"])
    if _adapted(manifest) and adapt is not None:
        rows.append(["Adapted", _training(adapt.epochs, adapt.learning_rate, adapt.batch_size, adapt.seed)])
    else:
        rows.append(["Adapted", "no"])
    if "train" in metrics:
        rows += [
            ["Fine-tuned", _training(finetune.epochs, finetune.learning_rate, finetune.batch_size, finetune.seed)],
            ["Labelled training rows", f"{metrics['train']['rows']:,}"],
            ["Longest text", f"{finetune.max_length} tokens; longer ones were {long_texts}"],
        ]
        if kept := metrics.get("kept"):
            rows.append(["Kept", f"the state after epoch {kept['epoch']:g}, the best on {kept['rows']:,} watched rows"])
        if classes := metrics["train"].get("classes"):
            rows.append(["Classes", ", ".join(f"`{name}`" for name in classes)])
    return rows


def _training(epochs: float, learning_rate: float, batch_size: int, seed: int) -> str:
    return f"epochs {epochs:g}, peak learning rate {learning_rate:g}, batch size {batch_size}, seed {seed}"


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """Return the sections of scores: those of a task, and the held-out losses of an adapted language model."""
    if "test" in metrics:
        names = list(metrics["test"]["scores"])
        rows = [
            [
                split,
                f"{metrics[split]['rows']:,}",
                *(f"{metrics[split]['scores'][name]:.3f}" for name in names),
                "{:.3f} to {:.3f}".format(*metrics[split]["interval"]),
            ]
            for split in ("validation", "test")
            if split in metrics
        ]
        interval = f"95 % interval of {metrics['metric']}"
        return [
            "## Scores",
            _table(["Split", "Rows", *names, interval], rows),
            "The interval is a bootstrap over the rows of this one model's scores: it does not tell how much another "
            "seed or another choice of labelled rows would have changed them.",
        ]
    if "heldout" in metrics:
        rows = [
            [entry["after"], f"{entry['loss']:.3f}", f"{entry['bits_per_byte']:.3f}"] for entry in metrics["heldout"]
        ]
        return ["## Held-out loss", _table(["After", f"Nats a {metrics['per']}", "Bits a byte"], rows)]
    return []


def _use(repo: str, manifest: Mapping[str, Any], model_config: Mapping[str, Any]) -> list[str]:
    """Return how to run the model; an adapted one is for its pipeline alone, as it answers no task."""
    examples = ["## Use"]
    tag, call = pipeline_tag(model_config), pipeline_call(model_config, repo)
    if call is not None:
        text = 'f"This is {run.tokenizer.mask_token}."' if tag == "fill-mask" else '"A text of your own."'
        trusting = TRUSTING if _brings_code(model_config) else ""
        examples.append(USE_TRANSFORMERS.format(trusting=trusting, call=call, text=text))
    if manifest["stage"] == "finetune":
        text = '("Who?", "Ada.")' if tag == "question-answering" else '"A text of your own."'
        examples.append(USE_ULMFIT_STYLE.format(repo=repo, text=text))
    return examples


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a bar within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
