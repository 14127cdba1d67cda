"""finetune: train the task on its labelled rows, from the adapted model or the plain checkpoint, and score it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ulmfit_style.analysis import comparison, estimate
from ulmfit_style.artefacts import predictions
from ulmfit_style.artefacts.differences import changes
from ulmfit_style.artefacts.directory import CHECKPOINTS, METRICS, RECIPE, Artefact, read_json, write_json
from ulmfit_style.compute import processes
from ulmfit_style.console import say
from ulmfit_style.data import guard, labelled, languages, splits
from ulmfit_style.errors import UserError, listed
from ulmfit_style.models import architectures, checkpoints, tokenizer_pair
from ulmfit_style.models.checkpoints import Checkpoint
from ulmfit_style.recipe import load
from ulmfit_style.resolved import Resolved, Step
from ulmfit_style.results.finished import BEFORE
from ulmfit_style.tasks.base import Feature, Row, Task
from ulmfit_style.tasks.types import Model, Tokenizer
from ulmfit_style.training import checks

if TYPE_CHECKING:
    from ulmfit_style.training.batching import EncodedDataset
    from ulmfit_style.training.phases import TrainingPlan
    from ulmfit_style.training.solving import Floats

DECODER_TOKENIZER_VERSION = 1
"""Raised whenever another tokenizer would be trained on the same right answers."""


def starts_from(resolved: Resolved) -> str | None:
    """Return the stage that makes what is fine-tuned: `adapt`, or what that would start from."""
    return resolved.stages["adapt"].starts_from(resolved) if resolved.config.adapt is None else "adapt"


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check the model and the options.

    Raises:
        UserError: if no task is set, or this model cannot be fine-tuned on it.
    """
    checks.finetune(resolved.config, resolved.task)
    if resolved.task.pools_windows and resolved.finetune.pooling == "default":
        raise UserError("task.long_documents=pooled: goes with finetune.pooling=mean or concat; add one of them")
    if (resolved.config.runs / resolved.config.name / "ensemble").exists():
        raise UserError(f"name={resolved.config.name} is the name of an ensemble; add name=<another>")
    if resolved.updated is not None:
        _check_update(resolved, resolved.updated.directory)
    if resolved.task.path.files():
        languages.say_if_unfit(resolved.config)
    if processes.is_main() and resolved.findings:
        guard.tell(resolved.findings)
        say("data: make check-data, with the same options, lists all of these rows")


def _check_update(resolved: Resolved, directory: Path) -> None:
    """Check that a finished model can be updated by the labelled rows, and say which rows and classes are others.

    Raises:
        UserError: if it is of another kind of task or of another model, or nothing would be left to tell the two apart.
    """
    config, made_by = resolved.config, load(directory / RECIPE)
    option = f"finetune.init={config.finetune.init}"
    kinds = [type(task).__name__ for task in (made_by.require_task(), resolved.task)]
    if kinds[0] != kinds[1]:
        raise UserError(f"{option}: was trained on {kinds[0]}, and the task is {kinds[1]}; choose the task that fits")
    if made_by.model.title() != config.model.title() or config.model.decoder is not None:
        made = f"was made of {made_by.model.title()}, which reads and writes in its own way"
        same = f"model.checkpoint={made_by.model.title()}, or the model=<name> that stands for it, without a decoder"
        raise UserError(f"{option}: {made}; give {same}")
    if resolved.task.pools_windows > made_by.require_task().pools_windows:
        raise UserError(f"{option}: was not trained with task.long_documents=pooled; leave that out")
    if different := list(changes(made_by.model.architecture, config.model.architecture, "model.architecture")):
        raise UserError(f"{option}: has {listed(different)}; give the same options")
    if (config.runs / config.name / "finetune").resolve() == directory.resolve():
        raise UserError(f"{option}: has the name {config.name}, which the new model would take; add name=<another>")
    every = labelled.load(resolved.task)
    for split in ("validation", "test"):
        count, left = len(every.split(split)), len(resolved.rows.split(split))
        if left < count:
            say(f"{option}: was trained on {count - left:,} of the {count:,} {split} rows, which are left out")
    known, now = read_json(directory / METRICS)["train"]["classes"], resolved.rows.classes
    for what, classes in {"new": set(now) - set(known), "gone, for no row has them": set(known) - set(now)}.items():
        if classes:
            say(f"{option}: classes that are {what}: {listed(sorted(classes))}")


def determinants(resolved: Resolved) -> dict[str, Any]:
    """Return what the fine-tuned model depends on."""
    config, task = resolved.config, resolved.task
    determinants = {
        "init": resolved.source_of("finetune").identity,
        "task": {"kind": type(task).__name__, **task.determinants()},
        "data": resolved.rows.digest,
        "finetune": resolved.finetune.determinants(),
    }
    if config.model.decoder is not None:
        determinants["decoder"] = _decoder(resolved).identity
    if config.finetune.patience is not None:
        determinants["watched"] = labelled.digest_of(task, resolved.rows.watched[1])
    return determinants


def work(resolved: Resolved) -> float:
    """Return how many tokens pass through the model, with those of the rows that are scored."""
    options, rows = resolved.finetune, resolved.rows
    learnt = estimate.tokens(resolved, resolved.training_rows)
    step = learnt * options.batch_size / max(1, len(resolved.training_rows))
    phases = 1 if isinstance(options.unfreeze, str) else len(options.unfreeze)
    passes = options.epochs + phases - 1 if options.epochs else 0
    contrast = (options.contrast_steps or 0) * step * (1 + options.calibration_folds * options.is_calibrated)
    trained = min(passes * learnt, step * (options.max_steps or math.inf)) + contrast
    return 3 * trained + learnt + estimate.tokens(resolved, [*rows.validation, *([] if rows.folds else rows.test)])


def run(step: Step, directory: Path) -> None:
    """Fine-tune the model, and score it on the validation and test rows."""
    from ulmfit_style.models.layers import merge_adapters
    from ulmfit_style.predictor import Predictor
    from ulmfit_style.training import monitoring, phases, scoring

    resolved = step.resolved
    rows, task, options = resolved.rows, resolved.task, resolved.finetune
    plan, tokenizer = prepare(resolved)
    scorer = scoring.Scorer(plan.model, tokenizer, task, options.max_length)

    # Train
    best, trial = None, None
    if options.patience is not None:
        watched = rows.watched[1]
        say(f"  {len(watched):,} rows are held out to choose the best epoch (finetune.patience)")
        best = monitoring.BestState(task.metric, partial(scorer.metric, watched), options.patience)
    if (reporter := step.reporter) is not None:
        trial = partial(monitoring.of_trial, reporter, partial(scorer.metric, rows.validation, reporter.metric))
    results = phases.train(plan, directory / CHECKPOINTS, best=best, trial=trial)
    if options.lora_rank:
        merge_adapters(plan.model)
    if options.is_calibrated and rows.train:
        _calibrate(resolved, plan.model, directory)
    if task.is_single_label and options.pooling not in (None, "default") and (rows.validation or rows.test):
        scorer = replace(scorer, learnt=_units_learnt(plan, directory))

    # Score
    # With folds, each row is answered by the model that has not seen it.
    folds = [fold.artefact("finetune").directory for fold in resolved.folds]
    answered: list[Sequence[predictions.Prediction]] = [predictions.read(fold, "test") for fold in folds]
    right = list(map(task.target, rows.test))
    scores: dict[str, Any] = {"folds": len(folds), "test": task.measure(list(chain(*answered)), right)} if folds else {}
    for split in ("validation", "test"):
        if split not in scores and (members := rows.split(split)):
            scores[split], split_predictions = scorer.score(members, split)
            answered.append(split_predictions)

    if resolved.updated is not None and "test" in scores and task.fold is None:
        before = Predictor(str(resolved.updated.directory), option="finetune.init")
        scores[BEFORE], split_predictions = before.scorer(task).score(rows.test, BEFORE)
        answered.append(split_predictions)

    # Finish
    if not processes.is_main():
        return
    plan.model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if answered:
        predictions.write(directory, chain(*answered))
    metrics: dict[str, Any] = {
        "task": type(task).__name__,
        "metric": task.metric,
        "train": {"rows": len(rows.train), "of": len(rows.pool), "classes": rows.classes, "left_out": rows.left_out},
        "data": {what: [len(cases), cases[: guard.KEPT]] for what, cases in resolved.findings.items()},
        **scores,
        "log": [{"phase": result.title, **entry} for result in results for entry in result.log],
    }
    if best is not None:
        kept = best.kept
        score_there = f"{task.metric} {kept[task.metric]:.3f} on the watched rows"
        say(f"  kept: the state of '{kept['phase']}' after epoch {kept['epoch']:g} ({score_there})")
        metrics["kept"] = {**kept, "rows": len(watched)}
        order = [phase.title for phase in plan.phases]
        log = [*metrics["log"], *best.curve]
        metrics["log"] = sorted(log, key=lambda entry: (order.index(entry["phase"]), entry["step"]))
    write_json(directory / METRICS, metrics)
    learnt = {*resolved.seen, *(predictions.text_digest(task, row) for row in rows.train)}
    write_json(directory / predictions.LEARNT, sorted(learnt))


def _calibrate(resolved: Resolved, model: Model, directory: Path) -> None:
    """Set the temperature of a model by answers of others, each to the rows that it was not trained on.

    A contrast draws together the rows that it is trained on, so their answers do not tell how sure others are.
    """
    from ulmfit_style.training import phases, solving

    options, rows = resolved.finetune, resolved.training_rows
    examples = []
    turns = splits.held_out_in_turn(resolved.task, rows, options.calibration_folds)
    for fold, (learnt, held) in enumerate(turns, start=1):
        say(f"  calibration: {fold} of {options.calibration_folds}")
        plan, tokenizer = prepare(resolved, learnt)
        phases.train(plan, directory / CHECKPOINTS / f"fold-{fold}")
        head = resolved.task.head(resolved.rows.classes)
        unseen = replace(plan.data, rows=_encoded(resolved.task, held, tokenizer, options.max_length, head))
        inputs = solving.head_inputs(plan.model, unseen)
        learnt_labels = [plan.data.rows[row]["labels"] for row in range(len(plan.data.rows))]
        known = np.isin(inputs.labels, learnt_labels)  # rows of other classes cannot be answered rightly
        examples.append((solving.logits(plan.model, inputs.inputs)[known], inputs.labels[known]))
    if not sum(len(labels) for _, labels in examples):
        say("  not calibrated: these rows are too few to be divided (finetune.calibration_folds)")
        return
    logits, labels = (np.concatenate(arrays) for arrays in zip(*examples, strict=True))
    temperature = solving.temperature(logits, labels)
    solving.cool(model, temperature)
    say(f"  calibrated by a temperature of {temperature:.2f}")


def _units_learnt(plan: TrainingPlan, directory: Path) -> Floats:
    """Keep what tells texts that belong to no class, and return it."""
    from ulmfit_style.training import scoring, solving

    units = scoring.units(solving.head_inputs(plan.model, plan.data).inputs).numpy() if processes.is_main() else None
    if units is not None:
        np.save(directory / scoring.UNITS, units.astype(np.float16))
    return cast("Floats", processes.from_main(units))


summarise = comparison.summarise


def prepare(resolved: Resolved, training_rows: Sequence[Row] | None = None) -> tuple[TrainingPlan, Tokenizer]:
    """Return the model with a new head and all that it is trained on, and its tokenizer.

    Args:
        training_rows: The labelled rows to train on; None for all that the recipe trains on.
    """
    import transformers

    from ulmfit_style.models import warm_start
    from ulmfit_style.models.layers import HEAD, add_adapters, layer_groups
    from ulmfit_style.training import batching, unfreezing
    from ulmfit_style.training.phases import Phase, TrainingData, TrainingPlan

    config, options, classes = resolved.config, resolved.finetune, resolved.rows.classes
    rows = resolved.training_rows if training_rows is None else training_rows
    source = resolved.source_of("finetune").directory
    architecture = architectures.architecture(checkpoints.body_config(source)["model_type"])
    task = resolved.task.for_architecture(architecture)
    head = task.head(classes)
    tokenizer = _tokenizer(resolved, source, rows)
    named = task.name_rows(classes) if options.label_names or not rows else []
    if options.label_names and not named:
        say("  the names of the classes are no words, so they are no examples (finetune.label_names)")
    features = _encoded(task, [*rows, *named] if named else rows, tokenizer, options.max_length, head)
    transformers.set_seed(options.seed)
    if config.model.decoder is not None:
        decoder, positions = _decoder(resolved).directory, task.positions_needed(0)
        model, missing, _ = warm_start.encoder_decoder(config.model, source, decoder, tokenizer.target, positions)
    elif options.pooling is None or options.pooling == "default":
        auto_class = getattr(transformers, task.auto_class(architecture))
        # By pad_token_id a causal model finds the last token of a text.
        model, missing, _ = checkpoints.load_model(auto_class, source, **head, pad_token_id=tokenizer.pad_token_id)
    else:
        model, missing, _ = checkpoints.load_pooled(source, options.pooling, head, is_solved=options.head == "solved")
    if architecture.carries_state:
        model.base_model.config.gradient_length = options.max_length
    if task.pools_windows:
        model.config.window = options.max_length
    task.prepare_model(model, tokenizer, rows)
    layers = add_adapters(model, layer_groups(model, missing), options)
    data = TrainingData(task, features, partial(batching.collate, tokenizer=tokenizer))
    phases = unfreezing.of_finetune(options, layers, data, tokenizer, has_rows=bool(rows), fast=config.fast)
    if config.model.decoder is not None and options.new_epochs:
        phases.insert(0, Phase("new parameters", layers[HEAD], options.new_epochs, options.new_learning_rate))
    how = config.micro_batch_size, config.save_minutes, config.shard, config.fast
    return TrainingPlan(model, phases, data, options, layers, *how), tokenizer


def _tokenizer(resolved: Resolved, source: Path, rows: Sequence[Row]) -> Tokenizer:
    """Return the tokenizer, which is a `TokenizerPair` where an encoder gets a decoder."""
    from ulmfit_style.models import warm_start

    config, tokenizer = resolved.config, tokenizer_pair.read(source)
    if config.model.decoder is None:
        return tokenizer
    if config.model.decoder == "scratch":
        targets = [str(resolved.task.target(row)) for row in rows]
        learn = partial(warm_start.learn_tokenizer, config.model.decoder_tokenizer, targets)
        _decoder_tokenizer(resolved).make(learn, config.recipe())
    return cast("Tokenizer", warm_start.pair_tokenizers(config.model, tokenizer, _decoder(resolved).directory))


def _decoder(resolved: Resolved) -> Checkpoint:
    """Return the checkpoint that an encoder's decoder is made from; of one from scratch, its tokenizer alone."""
    model = resolved.config.model
    if model.decoder == "same":
        return resolved.source_of("finetune")
    if (named := model.decoder_checkpoint()) is not None:
        return checkpoints.resolve(named, "model.decoder")
    tokenizer = _decoder_tokenizer(resolved)
    return Checkpoint(tokenizer.directory, {"layers": model.decoder_layers, "tokenizer": tokenizer.fingerprint})


def _decoder_tokenizer(resolved: Resolved) -> Artefact:
    """Return the artefact of the tokenizer of a decoder from scratch."""
    options = resolved.config.model.decoder_tokenizer.determinants()
    data = labelled.digest_of(resolved.task, resolved.training_rows)
    determinants = {"version": DECODER_TOKENIZER_VERSION, "tokenizer": options, "data": data}
    return Artefact("decoder_tokenizer", determinants, resolved.config.runs)


def _encoded(
    task: Task, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int, head: Mapping[str, Any]
) -> EncodedDataset:
    """Return the features of the rows to be trained on, and say how many rows are cut or left out."""
    from ulmfit_style.training.batching import EncodedDataset

    counts = Counter[str]()

    def features() -> Iterator[Feature]:
        for row, weight in zip(rows, task.row_weights(rows), strict=True):
            encoded = task.encode(row, tokenizer, max_length, head.get("label2id", {}))
            counts["long"] += any(feature["long"] for feature in encoded)
            counts["empty"] += not encoded
            counts["cut"] += any(feature.get("long_target", False) for feature in encoded)
            for feature in encoded:
                yield {**feature, "weight": weight * feature.get("weight", 1), "place": row.place}

    dataset = EncodedDataset(features())
    if long := counts["long"]:
        longer = f"{long:,} ({long / len(rows):.0%}) are longer than {max_length} tokens, and are {task.long_texts}"
        say(f"  of {len(rows):,} labelled rows, {longer} (finetune.max_length)")
        if task.long_texts.startswith("cut") and long > guard.MOST_CUT * len(rows):
            say(f"  what they end with may hold the answer: {task.reads_more} reads more of them")
    if counts["empty"]:
        say(f"  {counts['empty']:,} rows are skipped: none of their content fits (finetune.max_length)")
    if counts["cut"]:
        say(f"  {counts['cut']:,} targets are truncated (task.max_target_length)")
    return dataset
