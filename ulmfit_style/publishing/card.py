"""The model card that goes to the Hub with a model: what its own files say, and what its author adds."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ulmfit_style.config import Config
from ulmfit_style.console import duration
from ulmfit_style.data import hub
from ulmfit_style.insight import slices
from ulmfit_style.publishing import provenance
from ulmfit_style.publishing.provenance import Told
from ulmfit_style.run import RECIPE, read_json

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

Table = Sequence[Sequence[str]]
"""Rows of cells, the first of which is the header."""


def write(
    repo: str, model: Told, recipe: Config, overrides: Sequence[str] | None, licence: str | None, notes: str
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

    name, chain = repo.rpartition("/")[2], provenance.sources(model)
    model_config = read_json(model.directory / "config.json")
    tag = pipeline_tag(model_config, recipe)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=tag,
        license=licence,
        base_model=recipe.model.checkpoint if hub.is_id(recipe.model.title()) else None,
        datasets=_datasets(recipe) or None,
        tags=["ulmfit-style"],
        model_name=name,
        eval_results=_results(model, recipe, tag) or None,
    )
    adapted = next((told for told in chain if told.stage == "adapt"), None)
    plain = provenance.not_adapted(model)
    asked = (
        '("Who?", "Ada.")' if recipe.task is not None and len(recipe.task.inputs()) == 2 else '"A text of your own."'
    )
    facts = {
        "metadata": data.to_yaml(),
        "name": name,
        "repo": repo,
        "summary": _summary(model, recipe, tag),
        "notes": notes.strip(),
        "tuned": model.stage == "finetune",
        "adapted": _adapted(model),
        "architecture": model_config["architectures"][0],
        "call": pipeline_call(model_config, recipe, repo),
        "brings_code": _brings_code(model_config),
        "asked": asked,
        "asked_of_pipeline": 'f"This is {run.tokenizer.mask_token}."'
        if tag == "fill-mask"
        else '"A text of your own."',
        "scores": _scores(model.metrics),
        "seed": recipe.finetune.seed,
        "seeds": _seeds(model),
        "heldout": _heldout(adapted),
        "per": ""
        if adapted is None
        else f"The loss is in nats a {adapted.metrics['per']}, on documents that were held out.",
        "drift": "" if adapted is None else _drift(adapted.metrics.get("drift", {})),
        "worth": _worth(model, plain, recipe),
        "data": _data(model, adapted, recipe),
        "guards": _guards(model, adapted),
        "recipe": _recipe(model, recipe, licence),
        "overrides": overrides,
        "limits": _limits(model, recipe),
        "stages": _stages(chain),
        "versions": ", ".join(f"{library} {number}" for library, number in model.manifest["versions"].items()),
        "where": ", in a folder that holds the files named here" if _private(recipe) else "",
        "command": _command(chain, recipe, overrides),
        "artefact": model.directory.name,
    }
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["table"] = _markdown
    return str(ModelCard(environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(facts) + "\n"))


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


# Metadata


def _datasets(recipe: Config) -> list[str]:
    """Return the data sets of the Hub that the recipe names."""
    files = [*(recipe.corpus.path or ()), *(recipe.task.path.files().values() if recipe.task is not None else ())]
    there = [hub.parse("path", file).repository for file in files if file.startswith(hub.PREFIX)]
    return list(dict.fromkeys(there))


def _results(model: Told, recipe: Config, tag: str | None) -> list[Any]:
    """Return the test scores as the Hub reads them; interval and seed stand in their names, for it has no field."""
    from huggingface_hub import EvalResult

    if recipe.task is None or "test" not in model.metrics:
        return []
    path, test = recipe.task.path.train, model.metrics["test"]
    source = hub.parse("task.path", path).repository if path.startswith(hub.PREFIX) else PurePosixPath(path).name
    results = []
    for metric, value in test["scores"].items():
        low, high = test.get("intervals", {}).get(metric, (None, None))
        interval = "" if low is None else f"95 % interval {low:.3f} to {high:.3f}, "
        if math.isfinite(value):
            results.append(
                EvalResult(
                    task_type=tag or "other",
                    dataset_type=re.sub(r"[^\w./-]+", "-", source),
                    dataset_name=source,
                    dataset_split="test",
                    metric_type=metric,
                    metric_value=round(value, 4),
                    metric_name=f"{metric} ({interval}{test['rows']} rows, seed {recipe.finetune.seed})",
                )
            )
    return results


# What was done


def _adapted(model: Told) -> bool:
    """Tell whether the model, or the one that it was fine-tuned from, was adapted."""
    return model.stage == "adapt" or "adapt" in model.init


def _summary(model: Told, recipe: Config, tag: str | None) -> str:
    steps = ["pretrained from random weights"] if recipe.model.init == "scratch" and recipe.pretrain is not None else []
    steps += [f"adapted to {_corpus(recipe)}"] if _adapted(model) else []
    if recipe.task is not None and model.stage == "finetune":
        steps.append(f"fine-tuned on {model.metrics['train']['rows']:,} labelled rows of `{recipe.task.path}`")
    return f"A {tag or 'transformers'} model: `{recipe.model.title()}`, {' and '.join(steps)}."


def _corpus(recipe: Config) -> str:
    if recipe.corpus.path is not None:
        return f"the texts of {', '.join(f'`{path}`' for path in recipe.corpus.path)}"
    return "the unlabelled texts of its task's training split"


def _recipe(model: Told, recipe: Config, licence: str | None) -> Table:
    """Return what was done to the checkpoint."""
    adapt, finetune, base = recipe.adapt, recipe.finetune, recipe.model
    rows = [["", ""], ["Base checkpoint", f"`{base.title()}`, licence: {licence_of(base.license, base.title())}"]]
    identity = provenance.sources(model)[-1].init.get("checkpoint")
    if identity is not None:
        rows.append(["Its commit, or the digest of its files", f"`{identity.rpartition('@')[2]}`"])
    rows.append(["Licence of this model", licence or "none was given; ask its author"])
    if base.decoder is not None and model.stage == "finetune":
        rows.append(["Decoder", f"`{base.decoder}`"])
    if _adapted(model) and adapt is not None:
        rows.append(["Adapted", _training(adapt.epochs, adapt.learning_rate, adapt.batch_size, adapt.seed)])
    else:
        rows.append(["Adapted", "no"])
    if model.stage == "finetune":
        rows.append(
            ["Fine-tuned", _training(finetune.epochs, finetune.learning_rate, finetune.batch_size, finetune.seed)]
        )
        if kept := model.metrics.get("kept"):
            rows.append(["Kept", f"the state after epoch {kept['epoch']:g}, the best on {kept['rows']:,} watched rows"])
        if classes := model.metrics["train"].get("classes"):
            rows.append(["Classes", ", ".join(f"`{name}`" for name in classes)])
    return rows


def _training(epochs: float, learning_rate: float, batch_size: int, seed: int) -> str:
    return f"epochs {epochs:g}, peak learning rate {learning_rate:g}, batch size {batch_size}, seed {seed}"


def _stages(chain: Sequence[Told]) -> Table:
    """Return what each stage took, from the first one on."""
    rows = [["Artefact", "Time", "Hardware", "Processes", "Finished"]]
    for told in reversed(chain):
        one = told.manifest
        hardware = ", ".join(filter(None, (one["machine"], one.get("device"))))
        rows.append(
            [
                f"`{told.directory.name}`",
                duration(one["seconds"]),
                hardware,
                str(one.get("processes", 1)),
                one["finished"],
            ]
        )
    return rows


def _command(chain: Sequence[Told], recipe: Config, overrides: Sequence[str] | None) -> str:
    stages = [told.stage for told in reversed(chain)]
    if chain[0].stage == "finetune" and _adapted(chain[0]) and "adapt" not in stages:
        stages.insert(0, "adapt")
    if overrides is None:
        return shlex.join(["python", "-m", "ulmfit_style.launch", RECIPE, *stages])
    return shlex.join(["ulmfit-style", *stages, *overrides])


def _private(recipe: Config) -> bool:
    """Tell whether the checkpoint or some of the data are files of the author's."""
    files = [*(recipe.corpus.path or ()), *(recipe.task.path.files().values() if recipe.task is not None else ())]
    own = any(not file.startswith((hub.PREFIX, "package:")) for file in files)
    return own or recipe.model.title().startswith("./")


# What was measured


def _scores(metrics: Mapping[str, Any]) -> Table:
    """Return the scores of a task, with the interval of the one that ranks."""
    if "test" not in metrics:
        return []
    names = list(metrics["test"]["scores"])
    rows = [["Split", "Rows", *names, f"95 % interval of {metrics['metric']}"]]
    for split in ("validation", "test"):
        if split in metrics:
            scores = [f"{metrics[split]['scores'][name]:.3f}" for name in names]
            interval = "{:.3f} to {:.3f}".format(*metrics[split]["interval"])
            rows.append([split, f"{metrics[split]['rows']:,}", *scores, interval])
    return rows


def _seeds(model: Told) -> Table:
    """Return the test score of each seed that this recipe was trained with on these rows; nothing of a single one."""
    if model.stage != "finetune":
        return []
    metric, found = model.metrics["metric"], provenance.of_other_seeds(model)
    rows = [[str(seed), f"{told.metrics['test']['scores'][metric]:.3f}"] for seed, told in sorted(found.items())]
    return [["Seed", metric], *rows] if rows else []


def _heldout(adapted: Told | None) -> Table:
    if adapted is None:
        return []
    names = {"loss": "Held-out loss", "bits_per_byte": "Bits a byte", "general_loss": "Loss on general text"}
    entries = adapted.metrics["heldout"]
    there = [name for name in names if name in entries[0]]
    return [
        ["After", *(names[name] for name in there)],
        *([entry["after"], *(f"{entry[name]:.3f}" for name in there)] for entry in entries),
    ]


def _drift(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.1%} ({name})" for name, share in shares.items())


def _worth(model: Told, plain: Told | None, recipe: Config) -> str:
    return (
        "" if plain is None or recipe.task is None else provenance.worth(recipe.task, model.directory, plain.directory)
    )


def _data(model: Told, adapted: Told | None, recipe: Config) -> Table:
    rows = [["Data", "Size", "Licence", "Begin of the SHA-256 of what was read"]]
    corpus, task = recipe.corpus, recipe.task
    if adapted is not None:
        count, text = adapted.metrics["documents"], adapted.manifest["determinants"]["corpus"]["text"]
        size = f"{count['train']:,} documents, {adapted.metrics['tokens']:,} tokens; {count['heldout']:,} held out"
        told = task.license if corpus.path is None and task is not None else corpus.license
        source = task.path.train if corpus.path is None and task is not None else (corpus.path or ("",))[0]
        rows.append([f"text to adapt to: {_corpus(recipe)}", size, licence_of(told, source), f"`{text[:16]}`"])
    if task is not None and model.stage == "finetune":
        splits = {split: model.metrics[split]["rows"] for split in ("validation", "test") if split in model.metrics}
        train = model.metrics["train"]
        of = f" of {train['of']:,}" if "of" in train else ""
        size = ", ".join(
            [f"{train['rows']:,}{of} training", *(f"{count:,} {split}" for split, count in splits.items())]
        )
        digest = model.manifest["determinants"].get("data", "not recorded")
        rows.append(
            [f"labelled rows: `{task.path}`", size, licence_of(task.license, task.path.train), f"`{digest[:16]}`"]
        )
    return rows


def _guards(model: Told, adapted: Told | None) -> list[str]:
    """Tell what was left out so that no score is of what was learnt."""
    told = []
    found = None if adapted is None else adapted.metrics["documents"].get("in_test_or_validation")
    if found is not None:
        told.append(
            f"{found:,} documents were left out of the text to adapt to because they are validation or test texts."
        )
    if (rows := model.metrics.get("train", {}).get("left_out")) is not None:
        count = rows["in_test_or_validation"]
        told.append(f"{count:,} labelled rows were left out whose text also stands in test or validation.")
        told += [f"{rows['other_classes']:,} rows of other classes were left out."] if rows["other_classes"] else []
    return told or ["What the data's checks left out was not recorded by the version that trained it."]


def _limits(model: Told, recipe: Config) -> list[str]:
    """Tell for what the model is not known to be good, by what was measured and what was not."""
    told = ["Its languages are those of its data, which nobody recorded; no other was tried."]
    if model.stage != "finetune" or recipe.task is None:
        return [*told, "It is a language model: it answers no task until it is fine-tuned on one."]
    test = model.metrics["test"]
    learnt = f"It has learnt from {model.metrics['train']['rows']:,} labelled rows"
    told.append(f"{learnt}, and its scores are of {test['rows']:,} rows of the same source; no other was tried.")
    told.append(f"Texts longer than {recipe.finetune.max_length} tokens were {recipe.task.long_texts}.")
    if model.metrics["train"].get("classes"):
        told.append("It knows no other classes than those above.")
    if (small := slices.small_classes(test.get("report", []))) is not None:
        told.append(f"{small} (test rows of each).")
    measured = [found.metrics for found in provenance.evaluations(model)]
    told += [line for found in measured for line in _by_group(found)]
    if not any("slices" in found for found in measured):
        told.append(
            "No groups of rows were scored by themselves (`evaluate.slices`): how it does on each is not known."
        )
    return told


def _by_group(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Tell what `evaluate` measured of groups of rows, and of names that are exchanged."""
    metric = metrics["metric"]
    for column, found in metrics.get("slices", {}).items():
        judged = {group: one for group, one in found["groups"].items() if one["rows"] >= slices.FEWEST}
        scores = [
            "{} {:.3f} ({:.3f} to {:.3f})".format(group, one["scores"][metric], *one["interval"])
            for group, one in judged.items()
        ]
        few = f"{len(found['groups']) - len(judged)} groups of fewer than {slices.FEWEST} rows"
        yield f"{metric} by {column}, on the {metrics['split']} rows: {', '.join([*scores, few])}."
        if found["gap"] is not None:
            yield f"{slices.widest(column, metric, found['gap'], len(judged))}."
    for name, one in metrics.get("probe", {}).get("this one", {}).items():
        if one["rows"]:
            yield f"When {name} are exchanged, {one['share']:.1%} of the {one['rows']:,} answers change."


def _markdown(rows: Table) -> str:
    """Return a Markdown table; a bar within a cell is escaped."""
    header, *others = rows
    lines = [header, ["---"] * len(header), *others]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |" for cells in lines
    )
