"""The model card that goes to the Hub with a model: what its own files say, and what its author adds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ulmfit_style.artefacts.directory import RECIPE, read_json
from ulmfit_style.config.schema import spelled
from ulmfit_style.console import duration
from ulmfit_style.data import hub
from ulmfit_style.results import markdown, scores
from ulmfit_style.results.finished import Run
from ulmfit_style.results.model import Interval

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
"""What the Hub calls a model, by the end of its class's name; mostly it is the transformers pipeline that runs it."""

WRITING = {"Summarization": "summarization", "Translation": "translation"}
"""What it calls an encoder-decoder, by the task; these have no pipeline any more in transformers 5."""

WITHOUT_PIPELINE = ("question-answering", *WRITING.values())


def write(repo: str, run: Run, licence: str | None, notes: str) -> str:
    """Return the card, metadata and Markdown, of the model that `repo` (account/name) is to hold.

    Args:
        run: The model's; the caller has taken private paths out of its config, for the card shows all of it.
        licence: The model's, as the Hub spells it.
        notes: The author's own paragraphs, in Markdown.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import Environment, StrictUndefined

    recipe, task = run.config, run.config.task
    name, tag, adapted = repo.rpartition("/")[2], pipeline_tag(run), run.stage("adapt")
    corpus = recipe.corpus.path or ()
    files = [*corpus, *(task.path.files().values() if task is not None else ())]
    datasets = dict.fromkeys(hub.parse("path", file).repository for file in files if file.startswith(hub.PREFIX))
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=tag,
        license=licence,
        base_model=recipe.model.checkpoint if hub.is_id(recipe.model.title()) else None,
        datasets=list(datasets) or None,
        tags=["ulmfit-style"],
        model_name=name,
        eval_results=list(_results(run, tag)) or None,
    )
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"cell": lambda value: markdown.escaped(str(value)), "table": markdown.table}
    environment.filters |= {"grouped": "{:,}".format, "licence": licence_of, "spelled": spelled, "duration": duration}
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=metadata.to_yaml(),
        name=name,
        repo=repo,
        tag=tag,
        notes=notes.strip(),
        run=run,
        recipe=recipe,
        model=run.model,
        adapted=adapted,
        hub_licence=licence,
        architecture=_model_config(run)["architectures"][0],
        call=pipeline_call(run, repo),
        brings_code=_brings_code(run),
        scores=scores,
        interval=Interval,
        command=_command(run),
        is_private=recipe.model.title().startswith("./")
        or any(not file.startswith((hub.PREFIX, "package:")) for file in files),
    )
    return str(ModelCard(text))


def _model_config(run: Run) -> Mapping[str, Any]:
    model_config: Mapping[str, Any] = read_json(run.model.directory / "config.json")
    return model_config


def pipeline_tag(run: Run) -> str | None:
    """Return what the Hub calls a model, or None for a head that it has no word for."""
    architecture = str(_model_config(run)["architectures"][0])
    tag = next((tag for ending, tag in PIPELINES.items() if architecture.endswith(ending)), None)
    return tag or WRITING.get(type(run.config.task).__name__)


def pipeline_call(run: Run, repo: str) -> str | None:
    """Return what to type for the pipeline of the model in `repo`, or None for a head that no pipeline runs."""
    tag = pipeline_tag(run)
    options = ", trust_remote_code=True" if _brings_code(run) else ""
    options += ', aggregation_strategy="first"' if tag == "token-classification" else ""  # or it would return tokens
    return None if tag in (None, *WITHOUT_PIPELINE) else f'pipeline("{tag}", model="{repo}"{options})'


def _brings_code(run: Run) -> bool:
    """Return whether transformers needs a file of code that lies beside the weights."""
    return "auto_map" in _model_config(run)


def licence_of(licence: str | None, source: str) -> str:
    """Return a licence in words; `<licence> of <source>` holds for sources that begin so, and for no other."""
    name, of, whose = (licence or "").partition(" of ")
    return name if name and (not of or source.startswith(whose)) else "not known"


def _results(run: Run, tag: str | None) -> Iterator[EvalResult]:
    """Yield the test scores as the Hub reads them; their names hold interval and seed, for which it has no field."""
    from huggingface_hub import EvalResult

    task, test = run.config.task, run.model.metrics.get("test")
    if task is None or test is None:
        return
    path = task.path.train
    source = hub.parse("task.path", path).repository if path.startswith(hub.PREFIX) else PurePosixPath(path).name
    for metric, value in test["scores"].items():
        bounds = test["intervals"].get(metric)
        interval = "" if bounds is None else f"95 % interval {Interval(*bounds)}, "
        if math.isfinite(value):
            yield EvalResult(
                task_type=tag or "other",
                dataset_type=re.sub(r"[^\w./-]+", "-", source),
                dataset_name=source,
                dataset_split="test",
                metric_type=metric,
                metric_value=round(value, 4),
                metric_name=f"{metric} ({interval}{test['rows']} rows, seed {run.config.finetune.seed})",
            )


def _command(run: Run) -> str:
    """Return what to type to make the model again, beside its recipe."""
    stages = [made.stage for made in run.chain]
    if run.is_adapted and "adapt" not in stages:
        stages.insert(0, "adapt")
    return " ".join(["python", "-m", "ulmfit_style.launch", RECIPE, *stages])
