"""What was adapted differs from what was not by what it learnt of the corpus, and by nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from recipes import RECIPES
from samples import encoder_decoder, jsonl, reviews, save_llama, tiny_sizes, tiny_tokenizer, with_sentinels
from transformers import set_seed

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.recipe import Config
from ulmfit_style.stages.finetune import prepare
from ulmfit_style.stages.table import resolve

STILL = ("adapt.learning_rate=1e-30", "adapt.head_learning_rate=1e-30", "adapt.weight_decay=0", "adapt.general=null")
SHORT = ("adapt.epochs=0.1", "adapt.head_epochs=0.1", "adapt.max_length=16", "finetune.max_length=32", "compare=false")

FAMILIES = (
    *("BertModel", "BertForPreTraining", "DistilBertModel", "RobertaModel", "AlbertModel", "ElectraForPreTraining"),
    *("DebertaV2Model", "DebertaV2ForMaskedLM", "ModernBertForMaskedLM", "GPT2LMHeadModel", "LlamaForCausalLM"),
    *("T5ForConditionalGeneration", "BartForConditionalGeneration"),
)
"""The classes of checkpoints: some have a language-model head, and some have a head that neither stage reads.

A ModernBERT has its language-model head, as those that were published do, for its classifier reads that. Of a body
alone `adapt` makes a head, from which the adapted arm begins.
"""

KINDS = ("several labels", "numbers", "entities", "questions", "summaries", "completions")


def save(name: str, folder: Path) -> Path:
    """Save a tiny checkpoint of a class, with random weights."""
    set_seed(1)
    tokenizer = tiny_tokenizer()
    if name == "LlamaForCausalLM":
        return save_llama(folder)
    if name.startswith("T5"):
        tokenizer = with_sentinels(tokenizer)
        model = encoder_decoder("T5", tokenizer)
    elif name.startswith("Bart"):
        model = encoder_decoder("BART", tokenizer)
    else:
        sizes = tiny_sizes(tokenizer) | {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "n_embd": 16}
        ends = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
        architecture = getattr(transformers, name)
        model = architecture(architecture.config_class(**sizes, **ends, n_layer=2, n_head=2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Compose a recipe of text classification."""
    folder = tmp_path_factory.mktemp("classification")
    rows = jsonl(folder / "rows.jsonl", [{"text": text, "label": label} for text, label, _ in reviews(60)])
    recipe = [
        "task=text_classification",
        f"task.path={rows}",
        "task.folds=0",
        f"runs={folder / 'runs'}",
        *STILL,
        *SHORT,
    ]
    return lambda *options: compose([*recipe, *options])


@pytest.fixture(scope="module")
def classifier(classification: Callable[..., Config]) -> Config:
    return classification("finetune=plain")


def of(config: Config, checkpoint: Path) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"checkpoint": str(checkpoint)})})


def moved(config: Config) -> dict[str, float]:
    """Adapt at a rate that moves nothing; return by how much fine-tuning then begins with other weights than without.

    Where that is nothing, the rows and the seed are the same, and so the scores are.
    """
    resolved = resolve(config)
    chain.run(config, ["adapt"])
    adapted, plain = (prepare(arm)[0].model.state_dict() for arm in (resolved, resolved.variant(adapt=None)))
    assert adapted.keys() == plain.keys()
    changes = {name: float((adapted[name] - plain[name]).abs().max()) for name in plain}
    return {name: change for name, change in changes.items() if change > 1e-29}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_begins_with_the_same_weights(family: str, classifier: Config, tmp_path: Path):
    assert moved(of(classifier, save(family, tmp_path))) == {}


@pytest.mark.parametrize("option", ["finetune=few_labels", "adapt.lora_rank=2"])
def test_so_it_does_with_another_head_or_with_adapters(
    option: str, classification: Callable[..., Config], checkpoint: Path
):
    assert moved(of(classification(option), checkpoint)) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_so_does_every_kind_of_task(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    fixture, write, _ = RECIPES[kind]
    (tmp_path / "model").mkdir()
    family = {"checkpoint": "BertModel", "seq2seq_checkpoint": "T5ForConditionalGeneration"}.get(fixture)
    checkpoint = request.getfixturevalue(fixture) if family is None else save(family, tmp_path / "model")
    assert (
        moved(
            compose(
                [
                    *write(tmp_path),
                    f"model.checkpoint={checkpoint}",
                    f"runs={tmp_path}",
                    "finetune=plain",
                    *STILL,
                    *SHORT,
                ]
            )
        )
        == {}
    )
