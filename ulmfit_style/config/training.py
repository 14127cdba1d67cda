"""What determines a model: its checkpoint, the corpus, and how each stage trains."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ulmfit_style.config.section import Count, FileFormat, Needs, Rate, Section, Seed, Unhashed, one_or_several

Document = Literal["line", "paragraph", "file"]
"""What one document of a txt or md file is."""

Schedule = Literal["linear", "slanted", "cosine", "constant"]
"""How the learning rate falls after its warm-up."""

CONTRAST_GROUP_SIZE = 8
"""Texts that the contrastive phase compares with one another: two each of four classes, or more of fewer classes."""


def _rising(value: Any) -> Any:
    if value == "chain_thaw":
        return value
    trainable = value if isinstance(value, list | tuple) else (value,)
    numbers = [0, *(math.inf if number == "all" else number for number in trainable)]
    known = all(isinstance(number, int) or number == math.inf for number in numbers)
    if not trainable or not known or any(low >= high for low, high in pairwise(numbers)):
        raise ValueError("should be rising numbers of layer groups from 1 on, and may end with all; or chain_thaw")
    return trainable


class NewTokenizer(Section):
    """A tokenizer that is trained on the text that `pretrain` reads."""

    kind: Literal["wordpiece", "bpe", "unigram"]
    """WordPiece (BERT), byte-level byte-pair encoding (GPT-2, RoBERTa) or a unigram language model (SentencePiece)."""
    vocab_size: Count
    """Tokens, special ones included."""
    lowercase: bool = False
    """Whether capitals and accents are taken off first."""


class DecoderTokenizer(NewTokenizer):
    """A tokenizer that is trained on the right answers of the training rows."""

    kind: Literal["wordpiece", "bpe", "unigram"] = "bpe"
    """As in `model.tokenizer`; bpe writes any text, to the blank."""
    vocab_size: Count = 8000
    """Tokens at most, special ones included."""


class Model(Section):
    """A pretrained checkpoint, or an architecture with random weights."""

    checkpoint: str | None = None
    """A directory, a Hub id, a GGUF file, or `package:<folder or GGUF file>` for those of an installed Python package;
    auto: an encoder for the script and the language of the text, which py3langid tells where it is installed.
    A GGUF file is made into a checkpoint in single precision once, in the Hub's cache."""
    revision: str | None = None
    """The Hub commit, tag or branch. null: the newest commit when first used, and that one ever after; it stands in
    `pins.json` of the folder `runs`. For a newer one say model.revision=main, or remove its line there."""
    init: Literal["pretrained", "scratch"] = "pretrained"
    """pretrained: the checkpoint's weights; scratch: random ones, for `pretrain` to train, in the architecture and with
    the tokenizer of the checkpoint, or with those that follow."""
    architecture: dict[str, Any] | None = None
    """Where there is no checkpoint, the fields of transformers' config, model_type among them."""
    tokenizer: NewTokenizer | None = None
    """Where there is no checkpoint, the tokenizer that is trained."""
    seed: Seed = 0
    """Seed of the random weights."""
    license: str | None = None
    """The checkpoint's licence, for the model card: apache-2.0, or `apache-2.0 of <checkpoint>`, which holds for that
    checkpoint alone. null: the card says that it is not known."""
    decoder: str | None = None
    """What writes, where the task is to write a text and the checkpoint is an encoder. same: its own weights once more;
    a checkpoint, spelled like `checkpoint`; scratch: a small GPT-2 with random weights, and a
    tokenizer that is trained on the right answers of the training rows. Cross-attention is new in each. null: the
    checkpoint writes by itself, or the task wants no text."""
    decoder_revision: str | None = None
    """As `revision`, of the decoder's checkpoint."""
    decoder_layers: Count = 3
    """Layers of a decoder from scratch, each as wide as the encoder's."""
    decoder_tokenizer: DecoderTokenizer = DecoderTokenizer()
    """The tokenizer of a decoder from scratch; it has fewer tokens where the right answers make no more."""

    @model_validator(mode="after")
    def _has_what_it_names(self) -> Self:
        is_described = "model_type" in (self.architecture or {}) and self.tokenizer is not None
        if self.checkpoint is None and not (is_described and self.init == "scratch"):
            raise ValueError("needs a checkpoint; or init=scratch, a tokenizer and an architecture with its model_type")
        if self.checkpoint is not None and (self.architecture is not None or self.tokenizer is not None):
            raise ValueError("has a checkpoint, whose architecture and tokenizer are taken; leave the others out")
        if self.decoder_revision is not None and self.decoder_checkpoint() is None:
            raise ValueError(f"decoder_revision goes with a checkpoint, and decoder is {self.decoder or 'null'}")
        return self

    def decoder_checkpoint(self) -> "Model | None":
        """Return the decoder as a model of its own, where it is another checkpoint."""
        if self.decoder in (None, "same", "scratch"):
            return None
        return Model(checkpoint=self.decoder, revision=self.decoder_revision)

    def title(self) -> str:
        """Return what the model is called where it is told about."""
        return self.checkpoint or f"a new {(self.architecture or {})['model_type']}"


class Corpus(Section):
    """Unlabelled text for `adapt`."""

    path: Annotated[tuple[str, ...], BeforeValidator(one_or_several)] | None
    """What holds the documents: a file (csv, tsv, json, jsonl, parquet, xlsx, txt, md; also .gz, .bz2, .xz, .zip), a
    folder with all files in it, a glob such as 'notes/*.txt', or a list of these; null for the text of the task's
    training split."""
    format: FileFormat = FileFormat()
    """How the files are read, where that is not found out of them: corpus.format=txt for files of any name, or
    corpus.format={encoding: cp1252}, as `task.format`."""
    text: str | tuple[str, ...] = "text"
    """The column that holds the text, or several, with a line break between them; txt and md files have none."""
    document: Document | None = None
    """What one document is in txt and md files: a line, a paragraph (blank lines between them), or the whole file;
    null for a line of a txt file, and the whole of an md file."""
    license: str | None = None
    """The text's licence, for the model card. null: the card says that it is not known."""
    max_documents: Count | None = None
    """At most this many documents, chosen by content hash; null for all."""
    stream: bool = False
    """Whether neither texts nor tokens are kept: the files are read and tokenised anew in each epoch, in another order,
    and rows are drawn from one file, or some small ones, after another."""
    heldout_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the documents that is never trained on and measures the language model (at most 1,000 documents)."""


class Training(Section):
    """What every training stage takes."""

    learning_rate: Rate
    """Peak rate of the passes over the rows."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)]
    """Share of each phase's steps over which the rate rises; it then falls as `schedule` says."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay (AdamW); biases and norms are spared."""
    batch_size: Count
    """Rows per optimizer step, over all processes."""
    max_length: Count
    """Tokens per row, special tokens included."""
    seed: Seed
    """Seed of the order, the masks, the dropout and the new head."""
    schedule: Schedule = "linear"
    """How the rate falls in each phase, after it has risen for `warmup_ratio` of its steps: linear, to 0; slanted, to
    1/32 of the peak, from which it also rises (ULMFiT, section 3.2); cosine, as half a wave to 0; constant, not
    at all."""
    layer_decay: Annotated[float, Field(ge=1)] = 1
    """The factor by which the peak rate of each layer group is lower than that of the one above: the head has
    `learning_rate`, the embeddings the lowest (ULMFiT, section 3.2: 2.6 for three layers). 1: one rate for all."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """0: every weight is tuned. A number: each linear layer of the body gets a low-rank adapter of that rank, which is
    tuned in its place, for models too large to be tuned whole (Hu et al. 2021, section 4.1: LoRA). The head is tuned
    whole, and embeddings, biases and norms stay. In the end the adapters are merged into the weights. Needs peft."""
    lora_alpha: Annotated[Count, Needs("lora_rank")] = 16
    """What an adapter says is multiplied by this over its rank, so that another rank does not ask for another rate."""
    trainer: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Further fields of transformers' TrainingArguments: finetune.trainer.max_grad_norm=0.5"""


class LanguageModelling(Training):
    """Training a language model on unlabelled text."""

    epochs: Annotated[float, Field(gt=0)]
    """Passes over the rows with every weight trainable."""
    max_length: Annotated[int, Field(ge=16)]
    """Tokens a row, special tokens included: short documents share one, a longer one has several; none is dropped."""
    mask_probability: Annotated[float, Field(gt=0, lt=1)]
    """Share of the words that is masked (BERT: 0.15, BART: 0.3), or of the tokens (T5: 0.15)."""
    measurements: Annotated[Count, Unhashed] = 1
    """Times that the held-out text is measured in a phase, evenly spread, the last time at its end."""


class Pretrain(LanguageModelling):
    """Training a language model from random weights on general text."""

    path: Annotated[tuple[str, ...], BeforeValidator(one_or_several)] | None
    """What holds the general text, like corpus.path, and read with the other options of `corpus`; null for the corpus
    itself."""
    lora_rank: Literal[0] = 0
    """Random weights are trained whole."""


class Adapt(LanguageModelling):
    """Continued pretraining on the corpus."""

    new_tokens: Annotated[Annotated[int, Field(ge=0)] | str, Unhashed] = 0
    """Words of the corpus that the tokenizer cuts into pieces, and reads whole from then on: how many, those first that
    save the most tokens; or a file with one word a line. Not with `lora_rank`. 0: none."""
    head_epochs: Annotated[float, Field(ge=0)]
    """Passes that train what is new alone, before the others: a language-model head, where the checkpoint lacks one,
    and then what the model knows of `new_tokens`."""
    head_learning_rate: Annotated[Rate, Needs("head_epochs")]
    """Peak rate of those head passes."""
    anchor: Annotated[float, Field(ge=0)] = 10
    """How strongly the embedding of a text (the mean of its last hidden states) is held near the checkpoint's while
    every weight is trained, where the checkpoint lacks a language-model head, as sentence encoders do: what the loss,
    in nats, grows by where the cosine of the two is 0. It is part of the training loss, and not of the held-out one. A
    checkpoint with its head, such as one that was adapted, is trained without it. 0: not at all."""
    general: Annotated[str | None, Unhashed]
    """General text, a file or a folder: half of its documents measure what the model forgets. A document of a txt
    file is a line. null: nothing is measured."""

    @model_validator(mode="after")
    def _trains_new_tokens(self) -> Self:
        if self.new_tokens and self.lora_rank:
            raise ValueError("lora_rank leaves embeddings as they are, those of new_tokens too; give 0 for one of them")
        return self


class Finetune(Training):
    """Fine-tuning on the labelled task."""

    init: Annotated[str | None, Unhashed] = None
    """A finished model that is updated by more labels, or more classes: the name of its run, or its directory. Its body
    is trained on. A head that learns by steps keeps the outputs of the classes that it knows; one that is solved is
    solved anew from all rows. Both models are scored on the test rows that the old one was not trained on. null: it
    starts from the adapted model, or the checkpoint."""
    max_length: Count
    """Tokens per row, special tokens included. It is said how many rows are longer: these are cut, or read in windows
    where the task tells of single words."""
    epochs: Annotated[float, Field(ge=0)] | None = None
    """Passes over the rows with all that `unfreeze` thaws in the end; each phase before it takes one. 0: there are none
    of these phases, and with `head=solved` the body stays as it is. null: as `finetune=auto` chooses."""
    learning_rate: Annotated[Rate, Needs("epochs")]
    """Peak rate of each of these phases."""
    max_steps: Count | None = None
    """At most so many optimizer steps in all phases of `unfreeze` together, however many rows there are; none before
    the last takes more than an equal share of them. null: no bound."""
    unfreeze: Annotated[tuple[int | Literal["all"], ...] | Literal["chain_thaw"], BeforeValidator(_rising)] = ("all",)
    """How many of the last layer groups each phase trains: the head is one, each layer is one, and the embeddings are
    the lowest. [all]: every weight from the start. [1, 2, all]: gradually (ULMFiT, section 3.3): the head alone for one
    pass, then the last layer too for one, then every weight for `epochs` passes; each phase has a schedule of its own.
    [1]: the head alone, always. chain_thaw: the head alone, then each other group alone from the lowest up, a pass
    each, then every weight for `epochs` passes (Felbo et al. 2017)."""
    pooling: Literal["default", "mean", "concat"] | None = None
    """What the head reads of a text. default: what the architecture's own head reads. mean: the mean of the hidden
    states over all tokens. concat: the hidden state of one token (the last where a model reads from left to right, else
    the first), and the maximum and the mean over all tokens; two layers with 50 units between them tell the answer from
    it (ULMFiT, section 3.3). null: as `finetune=auto` chooses."""
    label_names: bool | None = None
    """Whether the name of each class is one more example of it: a text of the words of `card_arrival`. null: as
    `finetune=auto` chooses."""
    contrast_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimizer steps before all others, in which every layer but the head learns to draw what the head reads of texts
    of one class together, and that of others apart (Khosla et al. 2020). For few labels, with `head=solved` after it
    (Tunstall et al. 2022: SetFit). 0: none. null: as `finetune=auto` chooses."""
    contrast_learning_rate: Annotated[Rate, Needs("contrast_steps")] = 1e-4
    """Peak rate of these steps."""
    head: Literal["solved", "random"] | None = None
    """How the head begins. random: with random weights. solved: by a regression of the right answers on what it reads,
    as in linear probing before fine-tuning (Kumar et al. 2022). null: as `finetune=auto` chooses."""
    calibration_folds: Annotated[int, Field(ge=0)] = 2
    """Where training ends with a solved head: parts of the labelled rows, each of which is answered by a model that is
    trained on the others in as many steps. These answers choose the temperature that the model's own are divided by
    (Guo et al. 2017). Each part takes as long as the training itself. 0 or 1: none, so that answers are too sure."""
    new_epochs: Annotated[float, Field(ge=0)] = 1
    """Passes over the training rows before all others, in which what is new in an encoder-decoder of `model.decoder`
    learns alone: cross-attention, a head that the checkpoint lacked, and the whole of a decoder from scratch."""
    new_learning_rate: Annotated[Rate, Needs("new_epochs")] = 5e-4
    """Peak rate of these passes."""
    patience: Count | None = None
    """null: the last state is kept, which is right with few labels. A number: rows are watched, the state after the
    epoch that scored best on them is kept, and a phase stops after so many epochs without a better one; `epochs` is
    still what the rate falls over. The watched rows are 20 % of those of `task.train_samples` or `task.shots`, which
    are then not trained on; without these two, they are the validation rows."""

    @model_validator(mode="after")
    def _has_what_is_contrasted(self) -> Self:
        if self.pooling == "default" and (self.contrast_steps or self.head == "solved"):
            wanted = "contrast_steps" if self.contrast_steps else "head=solved"
            raise ValueError(f"{wanted} needs a head that pools the tokens; give finetune.pooling=mean or concat")
        if self.epochs == 0 and self.head == "random":
            raise ValueError("epochs=0 leaves the head random; give finetune.head=solved, or some epochs")
        if self.epochs == 0 and self.patience is not None:
            raise ValueError("patience needs epochs to choose from, and epochs=0; give some, or finetune.patience=null")
        return self

    @property
    def is_calibrated(self) -> bool:
        """Whether the temperature of the answers is set."""
        return bool(self.calibration_folds > 1 and self.head == "solved" and not self.epochs)

    @property
    def open(self) -> list[str]:
        """The options that are left to `finetune=auto`."""
        names = ("epochs", "pooling", "label_names", "contrast_steps", "head")
        return [name for name in names if getattr(self, name) is None]
