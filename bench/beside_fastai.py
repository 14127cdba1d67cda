"""fastai's AWD-LSTM beside the project's own: `python bench/beside_fastai.py [pairs=3]`.

A language model and a classifier of texts, at equal sizes, weights, dropouts, tokens, batches and steps, on one thread:
`language_model_learner` and `text_classifier_learner` with `fit_one_cycle`, beside `adapt` and `finetune` of a model of
`model=awd_lstm`. The weights are random: no pretrained ones are fetched. The language models are compared by the loss
on the same held-out documents, for which fastai's weights are put into our model; the classifiers by the loss of the
same training rows after it. Needs fastai and what it imports, and nothing else of what it asks for:

    pip install --no-deps --target FOLDER fastai fastcore fasttransform fastdownload fastprogress==1.0.3 \
        'plum-dispatch<2.10' beartype cloudpickle
    PYTHONPATH=FOLDER python bench/beside_fastai.py
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.text.all import (
    AWD_LSTM,
    CrossEntropyLossFlat,
    DataLoaders,
    LMDataLoader,
    SortedDL,
    awd_lstm_clas_config,
    awd_lstm_lm_config,
    language_model_learner,
    pad_input_chunk,
    text_classifier_learner,
)
from speed import Arm, from_weights, lines, resolved, rounds, timed, trained

from ulmfit_style.chain import quiet_libraries
from ulmfit_style.console import OUT
from ulmfit_style.resolved import Step
from ulmfit_style.stages import finetune, scratch
from ulmfit_style.stages.table import STAGES
from ulmfit_style.training import language_model

STREAMS, LENGTH, STEPS = 32, 72, 5
ROWS, BATCH = 128, 16
SIZES = {"emb_sz": 256, "n_hid": 512, "n_layers": 3, "input_p": 0.4, "hidden_p": 0.3, "embed_p": 0.05, "weight_p": 0.5}


def shared(body: Any, theirs: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield each weight of our body with that of fastai's."""
    yield body.embed_tokens.weight, theirs.encoder.weight
    for own, other in zip(body.layers, theirs.rnns, strict=True):
        yield own.weight_hh_l0, other.weight_hh_l0_raw
        for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
            yield getattr(own, name), getattr(other.module, name)


def loaders(train: Any, *, names: list[str], classes: int = 0) -> Any:
    """Return the loaders of fastai for batches that are made already."""
    made = DataLoaders(train, train)
    made.vocab, made.c = names, classes
    return made


def language_models(start: Path) -> dict[str, Arm]:
    """Language modelling in streams; a unit is 1,000 tokens."""
    sizes = (f"adapt.batch_size={STREAMS}", f"adapt.max_length={LENGTH}", "adapt.learning_rate=1e-3")
    recipe = resolved(f"model.checkpoint={start}", "model.license=null", "adapt.general=null", *sizes)
    assert recipe.config.adapt is not None
    prepared = language_model.prepare(recipe.config, recipe.config.adapt, start, recipe.corpus)
    model, tokenizer = prepared.plan.model, prepared.objective.tokenizer
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    needed, documents = STEPS * STREAMS * LENGTH + 1, []
    for text in (recipe.corpus.train[place] for place in range(len(recipe.corpus.train))):
        documents.append(torch.tensor(tokenizer(text)["input_ids"]))
        if sum(map(len, documents)) >= needed:
            break
    documents[-1] = documents[-1][: len(documents[-1]) - sum(map(len, documents)) + needed]
    units = STEPS * STREAMS * LENGTH / 1000
    names = list(tokenizer.get_vocab())

    def loss() -> float:
        return prepared.objective.measure(model, prepared.heldout)["loss"]

    def product(seed: int) -> tuple[float, float]:
        prepared.objective.states.clear()  # type: ignore[attr-defined]
        with timed():
            trained(prepared.plan, STEPS, seed)
        return units, loss()

    def theirs(_: int) -> tuple[float, float]:
        config = {**awd_lstm_lm_config, **SIZES, "output_p": 0.4, "pad_token": tokenizer.pad_token_id}
        batches = LMDataLoader([(document,) for document in documents], bs=STREAMS, seq_len=LENGTH, shuffle=True)
        learner = language_model_learner(loaders(batches, names=names), AWD_LSTM, config=config, pretrained=False)
        pairs = [*shared(model.body, learner.model[0]), (model.lm_head.bias, learner.model[1].decoder.bias)]
        with torch.no_grad():
            for own, other in pairs:
                other.copy_(own)
        with timed(), learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(1, 1e-3)
        with torch.no_grad():
            for own, other in pairs:
                own.copy_(other)
        return units, loss()

    return {name: from_weights(model, weights, run) for name, run in (("ours", product), ("fastai", theirs))}


def classifiers(start: Path) -> dict[str, Arm]:
    """Classification of review sentences, every weight, one pass; a unit is a row."""
    sizes = (f"task.train_samples={ROWS}", f"finetune.batch_size={BATCH}", "finetune.learning_rate=1e-3")
    recipe = resolved(f"model.checkpoint={start}", "model.license=null", "adapt=none", "finetune=plain", *sizes)
    plan, tokenizer = finetune.prepare(recipe)
    weights = {name: weight.clone() for name, weight in plan.model.state_dict().items()}
    steps = ROWS // BATCH
    features = [plan.data.rows[row] for row in range(len(plan.data.rows))]
    rows = [(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in features]
    names = list(tokenizer.get_vocab())
    config = {**awd_lstm_clas_config, **SIZES, "pad_token": tokenizer.pad_token_id}
    padded = partial(pad_input_chunk, pad_idx=tokenizer.pad_token_id, pad_first=True, seq_len=LENGTH)

    def product(seed: int) -> tuple[float, float]:
        with timed():
            trained(plan, steps, seed)
        some = plan.data.collate(features[:64])
        with torch.no_grad():
            return ROWS, float(plan.data.objective.loss(plan.model.eval(), some)) / 64

    def theirs(_: int) -> tuple[float, float]:
        batches = SortedDL(rows, bs=BATCH, shuffle=True, before_batch=padded)
        learner = text_classifier_learner(
            loaders(batches, names=names, classes=2),
            AWD_LSTM,
            config=config,
            pretrained=False,
            drop_mult=1,
            loss_func=CrossEntropyLossFlat(),
        )
        with torch.no_grad():
            for own, other in shared(plan.model.body, learner.model[0].module):
                other.copy_(own)
        with timed(), learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(1, 1e-3)
        texts, labels = zip(*rows[:64], strict=True)
        with torch.no_grad():
            learner.model.eval()
            learner.model.reset()
            batch = padded(list(zip(texts, labels, strict=True)))
            logits = learner.model(torch.stack([text for text, _ in batch]))[0]
            return ROWS, float(torch.nn.functional.cross_entropy(logits, torch.stack(labels)))

    return {name: from_weights(plan.model, weights, run) for name, run in (("ours", product), ("fastai", theirs))}


def main(arguments: list[str]) -> None:
    """Measure both."""
    pairs = next((int(word.partition("=")[2]) for word in arguments if word.startswith("pairs=")), 3)
    os.environ["RAYON_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    quiet_libraries()
    warnings.filterwarnings("ignore")
    OUT.quiet = True
    print("| work | arm | CPU ms a unit | times ours (lowest to highest) | the same? |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        recipe = resolved("model=awd_lstm", "model.architecture.batch_norm=true")
        scratch.run(Step(STAGES["scratch"], recipe, ""), Path(folder))
        for work, make, quality in (
            ("language model, 1,000 tokens", language_models, "loss on held-out text"),
            ("classifier, a row", classifiers, "loss of 64 training rows"),
        ):
            print("\n".join(lines(work, rounds(make(Path(folder)), pairs), quality)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
