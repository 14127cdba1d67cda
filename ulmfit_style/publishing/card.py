"""The model card that goes to the Hub with a model: what its own files say, and what its author adds."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ulmfit_style.analysis import comparison
from ulmfit_style.artefacts import finished, predictions
from ulmfit_style.artefacts.directory import RECIPE, read_json
from ulmfit_style.artefacts.finished import Made
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import duration
from ulmfit_style.data import hub
from ulmfit_style.recipe import Config
from ulmfit_style.results.scores import FEWEST, small_classes, widest_gap

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TEMPLATE = Path(__file__).with_name("card.md")

PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
}
"""What the Hub calls a model, by the end of its class's name; it is the transformers pipeline that runs it, mostly."""

WRITING = {"Summarization": "summarization", "Translation": "translation"}
"""What it calls an encoder-decoder, by the task; these have no pipeline any more in transformers 5."""

WITHOUT_PIPELINE = ("question-answering", *WRITING.values())


def write(
    repo: str, model: Made, recipe: Config, overrides: Sequence[str] | None, licence: str | None, notes: str
) -> str:
    """Return the card, metadata and Markdown, of the model that `repo` (account/name) is to hold.

    Args:
        recipe: That of the model, of which everything may be told: the caller has taken private paths out of it.
        overrides: What makes it out of the shipped recipe, if anything does.
        licence: The model's, as the Hub spells it.
        notes: The author's own paragraphs, in Markdown.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import Environment, StrictUndefined

    name, chain, task = repo.rpartition("/")[2], finished.sources(model), recipe.task
    model_config = read_json(model.directory / "config.json")
    tag = pipeline_tag(model_config, recipe)
    adapted = next((told for told in chain if told.stage == "adapt"), None)
    plain = finished.not_adapted(model)
    corpus = recipe.corpus.path or ()
    files = [*corpus, *(task.path.files().values() if task is not None else ())]
    datasets = list(dict.fromkeys(hub.parse("path", file).repository for file in files if file.startswith(hub.PREFIX)))
    own_text = recipe.corpus.license, corpus[0] if corpus else ""
    of_task = (task.license, task.path.train) if task is not None else (None, "")
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=tag,
        license=licence,
        base_model=recipe.model.checkpoint if hub.is_id(recipe.model.title()) else None,
        datasets=datasets or None,
        tags=["ulmfit-style"],
        model_name=name,
        eval_results=list(_results(model, recipe, tag)) or None,
    )
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "cell": lambda value: " ".join(str(value).split()).replace("|", "\\|"),
        "duration": duration,
        "grouped": "{:,}".format,
        "licence": licence_of,
        "spelled": spelled,
    }
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=metadata.to_yaml(),
        name=name,
        repo=repo,
        tag=tag,
        notes=notes.strip(),
        model=model,
        recipe=recipe,
        chain=chain,
        adapted=adapted,
        overrides=overrides,
        is_adapted=_adapted(model),
        steps=_steps(model, recipe),
        corpus=_corpus(recipe),
        corpus_licence=licence_of(*(own_text if corpus else of_task)),
        hub_licence=licence,
        architecture=model_config["architectures"][0],
        call=pipeline_call(model_config, recipe, repo),
        brings_code=_brings_code(model_config),
        seeds=finished.of_other_seeds(model) if model.stage == "finetune" else {},
        worth=""
        if plain is None or task is None
        else comparison.worth(task.metric, *predictions.difference(task, model.directory, plain.directory)),
        identity=chain[-1].init.get("checkpoint", "").rpartition("@")[2],
        measured=[{"slices": {}, "probe": {}, **one.metrics} for one in finished.evaluations(model)],
        small_classes=small_classes(model.metrics.get("test", {}).get("report", [])),
        fewest=FEWEST,
        widest=widest_gap,
        command=_command(chain, overrides),
        private=recipe.model.title().startswith("./")
        or any(not file.startswith((hub.PREFIX, "package:")) for file in files),
    )
    return str(ModelCard(text))


def pipeline_tag(model_config: Mapping[str, Any], recipe: Config) -> str | None:
    """Return what the Hub calls the model of a config.json, or None for a head that it has no word for."""
    architecture = str(model_config["architectures"][0])
    found = next((tag for ending, tag in PIPELINES.items() if architecture.endswith(ending)), None)
    return found or WRITING.get(type(recipe.task).__name__)


def pipeline_call(model_config: Mapping[str, Any], recipe: Config, repo: str) -> str | None:
    """Return what to type for the pipeline of the model in `repo`, or None for a head that no pipeline runs."""
    tag = pipeline_tag(model_config, recipe)
    more = ", trust_remote_code=True" if _brings_code(model_config) else ""
    more += ', aggregation_strategy="first"' if tag == "token-classification" else ""  # or it would tell tokens
    return None if tag in (None, *WITHOUT_PIPELINE) else f'pipeline("{tag}", model="{repo}"{more})'


def _brings_code(model_config: Mapping[str, Any]) -> bool:
    """Tell whether transformers needs a file of code that lies beside the weights."""
    return "auto_map" in model_config


def licence_of(told: str | None, source: str) -> str:
    """Return a licence in words; `<licence> of <source>` holds for sources that begin so, and for no other."""
    name, of, whose = (told or "").partition(" of ")
    return name if name and (not of or source.startswith(whose)) else "not known"


def _results(model: Made, recipe: Config, tag: str | None) -> Iterator[EvalResult]:
    """Yield the test scores as the Hub reads them; interval and seed stand in their names, for it has no field."""
    from huggingface_hub import EvalResult

    if recipe.task is None or "test" not in model.metrics:
        return
    path, test = recipe.task.path.train, model.metrics["test"]
    source = hub.parse("task.path", path).repository if path.startswith(hub.PREFIX) else PurePosixPath(path).name
    for metric, value in test["scores"].items():
        bounds = test["intervals"].get(metric)
        interval = "" if bounds is None else "95 % interval {:.3f} to {:.3f}, ".format(*bounds)
        if math.isfinite(value):
            yield EvalResult(
                task_type=tag or "other",
                dataset_type=re.sub(r"[^\w./-]+", "-", source),
                dataset_name=source,
                dataset_split="test",
                metric_type=metric,
                metric_value=round(value, 4),
                metric_name=f"{metric} ({interval}{test['rows']} rows, seed {recipe.finetune.seed})",
            )


def _adapted(model: Made) -> bool:
    """Tell whether the model, or the one that it was fine-tuned from, was adapted."""
    return model.stage == "adapt" or "adapt" in model.init


def _steps(model: Made, recipe: Config) -> list[str]:
    """Tell what was done to the checkpoint."""
    steps = ["pretrained from random weights"] if recipe.model.init == "scratch" and recipe.pretrain is not None else []
    steps += [f"adapted to {_corpus(recipe)}"] if _adapted(model) else []
    if recipe.task is not None and model.stage == "finetune":
        steps.append(f"fine-tuned on {model.metrics['train']['rows']:,} labelled rows of `{recipe.task.path}`")
    return steps


def _corpus(recipe: Config) -> str:
    if recipe.corpus.path is not None:
        return f"the texts of {', '.join(f'`{path}`' for path in recipe.corpus.path)}"
    return "the unlabelled texts of its task's training split"


def _command(chain: Sequence[Made], overrides: Sequence[str] | None) -> str:
    """Return what to type to make the model again."""
    stages = [told.stage for told in reversed(chain)]
    if _adapted(chain[0]) and "adapt" not in stages:
        stages.insert(0, "adapt")
    if overrides is None:
        return shlex.join(["python", "-m", "ulmfit_style.launch", RECIPE, *stages])
    return shlex.join(["ulmfit-style", *stages, *overrides])
