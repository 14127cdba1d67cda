"""The model card that goes to the Hub with a model: what its own files say, and what its author adds."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from ulmfit_style.artefacts.directory import read_json
from ulmfit_style.config.commands import Hub
from ulmfit_style.config.section import spelled
from ulmfit_style.console import duration
from ulmfit_style.data import hub
from ulmfit_style.publishing import HUB
from ulmfit_style.recipe import Config
from ulmfit_style.results import markdown, scores
from ulmfit_style.results.finished import Run
from ulmfit_style.results.parts import Interval
from ulmfit_style.tasks.values import Pipeline


def write(repo: str, run: Run, options: Hub, notes: str, members: Mapping[str, Config] = {}) -> str:
    """Return the card, metadata and Markdown, of the model that `repo` (account/name) is to hold.

    Args:
        run: The model's; the caller has taken private paths out of its config, for the card shows all of it.
        options: What its author says of the model.
        notes: The author's own paragraphs, in Markdown.
        members: The configs of an ensemble's members, by their folders.
    """
    recipe, task = run.config, run.config.task
    folders, name = [run.model.directory / member for member in members or ("",)], repo.rpartition("/")[2]
    model_config, *others = [read_json(folder / "config.json") for folder in folders]
    pipeline = _pipeline(run, model_config["architectures"][0])
    tag, models = None if pipeline is None else pipeline.tag, [one.model for one in members.values()] or [recipe.model]
    bases = [HUB["embedded"].get(model.title(), model.title()) for model in models]
    on_hub = list(dict.fromkeys(filter(hub.is_id, bases)))
    files = [*(recipe.corpus.path or ()), *(task.path.all_files() if task is not None else ())]
    datasets = dict.fromkeys(hub.parse("path", file).repository for file in files if file.startswith(hub.PREFIX))
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=tag,
        license=options.license,
        language=list(options.language) or None,
        base_model=next(iter(on_hub), None) if len(on_hub) < 2 else on_hub,
        widget=[{"text": text} for text in options.examples] or None,
        datasets=list(datasets) or None,
        tags=["ulmfit-style"],
        model_name=name,
        eval_results=list(_results(run, tag)) or None,
    )
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    jinja.filters |= {"code": lambda value: markdown.code(str(value)), "table": markdown.table, "spelled": spelled}
    jinja.filters |= {"grouped": "{:,}".format, "licence": licence_of, "duration": duration, "text": markdown.escaped}
    text = jinja.from_string(Path(__file__).with_name("card.md").read_text(encoding="utf-8")).render(
        metadata=metadata.to_yaml(),
        name=name,
        repo=repo,
        notes=notes.strip(),
        run=run,
        options=options,
        model_config=model_config,
        pipeline=pipeline,
        members=members,
        has_code=any("auto_map" in config for config in (model_config, *others)),
        scores=scores,
        is_private=recipe.model.title().startswith("./")
        or any(not file.startswith((hub.PREFIX, "package:")) for file in files),
    )
    return str(ModelCard(text))


def _pipeline(run: Run, model_class: str) -> Pipeline | None:
    """Return how transformers runs the model; None for one that the Hub has no word for."""
    of_task = run.config.require_task().pipeline if run.is_finetuned else None
    return next((Pipeline(tag) for end, tag in HUB["language_models"].items() if model_class.endswith(end)), of_task)


def licence_of(licence: str | None, source: str) -> str:
    """Return a licence in words; `<licence> of <source>` holds for sources that begin so, and for no other."""
    name, of, whose = (licence or "").partition(" of ")
    return name if name and (not of or source.startswith(whose)) else "not known"


def _results(run: Run, tag: str | None) -> Iterator[EvalResult]:
    """Yield the test scores as the Hub reads them; their names hold interval and seed, for which it has no field."""
    task, test = run.config.task, run.model.metrics.get("test")
    if task is None or test is None:
        return
    path = task.path.all_files()[0]
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
