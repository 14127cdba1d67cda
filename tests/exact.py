"""Three plain SGD steps, however the batch is split: what accumulation and several processes must not change.

`python -m exact FOLDER`, started as one of several processes, saves in the folder that holds the tokenizer the final
weights of every kind, and how a run with a best state ended, in one go and with a break.
"""

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from samples import (
    DECODER,
    ENCODER,
    ENCODER_DECODER,
    Killed,
    chunks,
    encoder_decoder,
    questions,
    reviews,
    tag,
    tiny_sizes,
    tiny_t5,
    with_sentinels,
)
from tiny_run import TinyRun, finetune_options, without_dropout
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5ForConditionalGeneration,
    TrainingArguments,
    set_seed,
)

from ulmfit_style.compute import processes
from ulmfit_style.models.checkpoints import sentinels
from ulmfit_style.models.layers import add_adapters, layer_groups, split_by_layer
from ulmfit_style.models.pooling import PooledConfig, PooledForSequenceClassification
from ulmfit_style.tasks.base import Row, Task
from ulmfit_style.tasks.base_generation import GenerationTask
from ulmfit_style.tasks.multi_label_classification import MultiLabelClassification
from ulmfit_style.tasks.question_answering import QuestionAnswering
from ulmfit_style.tasks.summarization import Summarization
from ulmfit_style.tasks.text_classification import TextClassification
from ulmfit_style.tasks.text_generation import TextGeneration
from ulmfit_style.tasks.text_regression import TextRegression
from ulmfit_style.tasks.token_classification import TokenClassification
from ulmfit_style.tasks.translation import Translation
from ulmfit_style.training.batching import EncodedDataset, ShuffledDataset, collate
from ulmfit_style.training.contrast import ContrastiveDataset, ContrastiveObjective
from ulmfit_style.training.objectives import CausalLM, Denoising, MaskedLM
from ulmfit_style.training.trainer import SHARES, RecipeTrainer, whole

TASK = TextClassification(path="-")
TASKS: dict[str, Task] = {
    "classification": TASK,
    "weighted classification": TextClassification(path="-", class_weights="balanced"),
    "multi-label classification": MultiLabelClassification(path="-"),
    "regression": TextRegression(path="-"),
    "token classification": TokenClassification(path="-"),
    "token classification on all sub-words": TokenClassification(path="-", subwords="all", overlap=0.5),
    "question answering": QuestionAnswering(path="-"),
    "summarisation": Summarization(path="-", max_target_length=16, label_smoothing=0.1).for_architecture(
        ENCODER_DECODER
    ),
    "translation by a decoder": Translation(
        path="-", source_language="en", target_language="de", max_target_length=16
    ).for_architecture(DECODER),
    "completions": TextGeneration(path="-", max_target_length=16).for_architecture(DECODER),
}
LANGUAGE = ["masked language modelling", "causal language modelling", "span corruption", "text infilling"]
LAYERWISE = "layers at rates of their own, the lowest frozen"
ADAPTERS = "low-rank adapters"
TASKS |= {LAYERWISE: TASK, ADAPTERS: TASK}
CONTRAST = "contrast"
KINDS = [*LANGUAGE, *TASKS, CONTRAST]
SHARDED = ["masked language modelling", "span corruption", "completions", LAYERWISE, ADAPTERS, CONTRAST]
"""Kinds that between them have every architecture, and every way to train some of the weights."""


def labelled(kind: str, count: int = 40) -> list[Row]:
    """Rows of many lengths, so that batches hold unequal numbers of tokens, and of unequally many in each class."""
    rows = []
    for number, (text, _, _) in enumerate(reviews(count)):
        if isinstance(TASKS[kind], TokenClassification):
            words = f"{text} film{' a film' * (2 * (number % 9))}".split()  # up to 66 tokens: some take several windows
            rows.append(Row("reviews", number, {"text": words, "label": tag(words)}))
            continue
        if isinstance(TASKS[kind], QuestionAnswering):
            asked = questions(count)[number]
            context = f"{asked['context']}{' film' * (2 * (number % 9))}"  # up to 66 tokens
            rows.append(Row("reviews", number, {**asked, "context": context, "answer": asked["answers"]}))
            continue
        if isinstance(TASKS[kind], GenerationTask):
            right = " ".join(reversed(text.split()[: 2 + number % 5]))
            (field, *_), target = TASKS[kind].inputs(), TASKS[kind].targets()
            rows.append(Row("reviews", number, {field: text, **dict.fromkeys(target, right)}))
            continue
        labels = [name for name, every in (("good", 2), ("long", 3), ("rare", 7)) if number % every == 0]
        label: Any = {"multi-label classification": labels, "regression": number / 7}.get(kind, str(number % 3 == 0))
        rows.append(Row("reviews", number, {"text": text + " film" * (number % 9), "label": label}))
    return rows


def features(tokenizer: PreTrainedTokenizerFast, count: int = 40, kind: str = "classification") -> EncodedDataset:
    """What the model reads of the rows, as `finetune` makes it; `row` says which row it is."""
    task, rows = TASKS[kind], labelled(kind, count)
    label2id = task.head(task.classes(rows)).get("label2id", {})
    return EncodedDataset(
        {**feature, "weight": weight, "row": row.number}
        for row, weight in zip(rows, task.row_weights(rows), strict=True)
        for feature in task.encode(row, tokenizer, 32, label2id)
    )


def untrained(kind: str, tiny: dict, **sizes: Any) -> PreTrainedModel:
    """A tiny BERT with the head of a kind; a tiny T5 or Llama where texts are written."""
    task = TASKS[kind]
    if kind == "summarisation":
        return T5ForConditionalGeneration(tiny_t5(tiny))
    if isinstance(task, GenerationTask):
        return LlamaForCausalLM(LlamaConfig(**without_dropout(tiny)))
    head = task.head(task.classes(labelled(kind)))
    return getattr(transformers, task.auto_class(ENCODER)).from_config(BertConfig(**tiny, **head, **sizes))


def weights_after(
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    tiny: dict,
    folder: Path,
    micro: int,
    shard: bool = False,
    **options: Any,
) -> torch.Tensor:
    """Train three plain SGD steps of 8 rows, `micro` rows at a time; options are further ones of the Trainer."""
    set_seed(0)
    if kind in LANGUAGE:
        model: Any = BertForMaskedLM(BertConfig(**tiny))
        objective: Any = MaskedLM(tokenizer, 0.15, seed=0)
        if kind == "causal language modelling":
            model = LlamaForCausalLM(LlamaConfig(**without_dropout(tiny)))
            objective = CausalLM(tokenizer)
        elif kind == "span corruption":
            tokenizer = with_sentinels(tokenizer)
            model, objective = encoder_decoder("T5", tokenizer), Denoising(tokenizer, 0.3, 0, sentinels(tokenizer))
        elif kind == "text infilling":
            model, objective = encoder_decoder("BART", tokenizer), Denoising(tokenizer, 0.3, 0)
        texts = [text + " film" * (number % 9) for number, (text, _, _) in enumerate(reviews(20))]
        rows: Any = chunks(texts, tokenizer, 32, folder)
        gather = objective.collate
    elif kind == CONTRAST:
        objective, rows = ContrastiveObjective(), ContrastiveDataset(features(tokenizer, 100), tokenizer, seed=0)
        gather = rows.collate
        body = BertModel(BertConfig(**tiny), add_pooling_layer=False)
        model = PooledForSequenceClassification(PooledConfig(body=body.config.to_dict(), pooling="mean"), body)
        model.head.requires_grad_(False)
    else:
        objective, rows, gather = TASKS[kind], features(tokenizer, 20, kind), partial(collate, tokenizer=tokenizer)
        # The last batch of an epoch has one row: of two processes one has none of its own.
        rows = EncodedDataset(rows[number] for number in range(len(rows) // 8 * 8 - 7))
        model = untrained(kind, tiny)
    layers = layer_groups(model, ()) if kind == LAYERWISE else {}
    for parameter in [*layers.get("embeddings", []), *layers.get("layer 1", [])]:
        parameter.requires_grad_(False)
    if kind == ADAPTERS:
        lora = finetune_options(lora_rank=4)
        for parameter in add_adapters(model, layer_groups(model, ()), lora)["head"]:
            parameter.requires_grad_(True)
    trainer = RecipeTrainer(
        model=model,
        objective=objective,
        rates=lambda steps: [1] * steps,
        split=partial(split_by_layer, layers=layers, decay=2) if layers else None,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=3,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // (micro * processes.count()),
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
            **options,
        ),
        train_dataset=ShuffledDataset(rows, 8, 0, 0, 8 if processes.count() > 1 else 1),
        collate=gather,
        shard=shard,
    )
    trainer.train()
    with whole(model):
        shares = SHARES.pop(model, {}).values()
    held, size = (sum(map(torch.numel, tensors)) for tensors in ([share.to_local() for share in shares], shares))
    assert held <= 0.51 * size
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def head_alone(tokenizer: PreTrainedTokenizerFast, folder: Path, micro: int) -> torch.Tensor:
    """Train the head of a model without dropout for two passes, on what is kept of the frozen trunk."""
    run = TinyRun(tokenizer, folder, 60, hidden_dropout_prob=0.0)
    run.run({"trainable": ["head"]}, micro=micro)
    return run.weights()


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes.join()
    folder = Path(sys.argv[1])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    micro, rank = 8 // processes.count(), os.environ["RANK"]
    ends = {kind: weights_after(kind, tokenizer, tiny_sizes(tokenizer), folder, micro) for kind in KINDS}
    for kind in SHARDED:
        ends[f"sharded {kind}"] = weights_after(kind, tokenizer, tiny_sizes(tokenizer), folder, micro // 2, shard=True)
    ends["kept trunk"] = head_alone(tokenizer, folder / "head", micro)
    torch.save(ends, folder / f"weights.{rank}")
    runs = [TinyRun(tokenizer, folder / name) for name in ("whole", "killed")]
    with suppress(Killed):
        runs[1].run(patience=2, epochs=3, killed_at=4)
    for run in runs:
        run.run(patience=2, epochs=3)
    torch.save([(run.best.curve, run.weights()) for run in runs], folder / f"best.{rank}")
    processes.end(0)
