"""The sections of the configuration: every option, with its unit and what it takes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ulmfit_style import training_arguments
from ulmfit_style.errors import nearest
from ulmfit_style.schema import Count, Rate, Ratio, Section, Seed, Unhashed

Document = Literal["line", "paragraph", "file"]
"""What one document of a txt or md file is."""

Schedule = Literal["linear", "slanted", "cosine", "one_cycle", "constant"]
"""How the learning rate falls after its warm-up."""

GROUP = 8
"""Texts that the contrastive phase compares with one another: two each of four classes, or more of fewer classes."""


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _rising(value: Any) -> Any:
    if value == "chain_thaw":
        return value
    thawed = value if isinstance(value, list | tuple) else (value,)
    numbers = [0, *(math.inf if number == "all" else number for number in thawed)]
    known = all(isinstance(number, int) or number == math.inf for number in numbers)
    if not thawed or not known or any(low >= high for low, high in pairwise(numbers)):
        raise ValueError(
            "should be rising numbers of layer groups from 1 on, the last of which may be all; or chain_thaw"
        )
    return thawed


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
    """A directory, a Hub id, a GGUF file, or `package:<folder or GGUF file>` for those of an installed Python package.
    A GGUF file is made into a checkpoint in single precision once, in the Hub's cache."""
    revision: str | None = None
    """The Hub commit, tag or branch. null: the newest commit when first used, and that one ever after; it stands in
    `pins.json` of the folder `runs`. For a newer one say model.revision=main, or remove its line there."""
    sha256: str | None = None
    """The expected SHA-256 of model.safetensors, or of the GGUF file, checked before use."""
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
    """What writes, where the task is to write a text and the checkpoint is an encoder. same: its own weights once more,
    with the same embeddings; a checkpoint, spelled like `checkpoint`; scratch: a small GPT-2 with random weights, and a
    tokenizer that is trained on the right answers of the training rows. Cross-attention is new in each. null: the
    checkpoint writes by itself, or the task wants no text."""
    decoder_revision: str | None = None
    """As `revision`, of the decoder's checkpoint."""
    decoder_layers: Count = 3
    """Layers of a decoder from scratch, each as wide as the encoder's."""
    decoder_tokenizer: DecoderTokenizer = DecoderTokenizer()
    """The tokenizer of a decoder from scratch; it has fewer tokens where the right answers make no more."""

    @model_validator(mode="after")
    def _has_a_source(self) -> Model:
        own = self.architecture is not None and self.tokenizer is not None
        if self.checkpoint is None and not own:
            raise ValueError("needs a checkpoint, or an architecture and a tokenizer")
        if self.checkpoint is None and self.init == "pretrained":
            raise ValueError("there is no checkpoint whose weights could be taken; use model.init=scratch")
        if self.checkpoint is not None and (self.architecture is not None or self.tokenizer is not None):
            raise ValueError("has a checkpoint, whose architecture and tokenizer are taken; leave the others out")
        if own and "model_type" not in (self.architecture or {}):
            raise ValueError("the architecture needs a model_type, such as bert")
        return self

    @model_validator(mode="after")
    def _has_one_decoder_revision(self) -> Model:
        if self.decoder_revision is not None and self.decoder_checkpoint() is None:
            raise ValueError(f"decoder_revision goes with a checkpoint, and decoder is {self.decoder or 'null'}")
        return self

    def decoder_checkpoint(self) -> Model | None:
        """Return the decoder as a model of its own, where it is another checkpoint."""
        if self.decoder in (None, "same", "scratch"):
            return None
        return Model(checkpoint=self.decoder, revision=self.decoder_revision)

    def title(self) -> str:
        """Return what the model is called where it is told about."""
        return self.checkpoint or f"a new {(self.architecture or {})['model_type']}"


class Corpus(Section):
    """Unlabelled text for `adapt`."""

    path: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] | None
    """What holds the documents: a file (csv, tsv, jsonl, parquet, txt, md; also .gz, .bz2, .xz, .zst), a folder with
    all files in it, a glob such as 'notes/*.txt', or a list of these; null for the text of the task's training split.
    """
    text: str = "text"
    """The column that holds the text; txt and md files have none."""
    document: Document | None = None
    """What one document is in txt and md files: a line, a paragraph (blank lines between them), or the whole file;
    null for a line of a txt file, and the whole of an md file."""
    license: str | None = None
    """The text's licence, for the model card. null: the card says that it is not known."""
    max_documents: Count | None = None
    """At most this many documents, chosen by content hash; null for all."""
    heldout_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the documents that is never trained on and measures the language model (at most 1,000 documents)."""


class Training(Section):
    """What every training stage takes."""

    schedule: Schedule = "linear"
    """How the rate falls in each phase, after it has risen for `warmup_ratio` of its steps: linear, to 0; slanted, to
    1/32 of the peak, from which it also rises (ULMFiT, section 3.2); cosine, as half a wave to 0; one_cycle, as half a
    wave to 1/100,000 of the peak, to which it rises as half a wave from 1/25 (Smith 2018, as in fastai, but for the
    momentum, which stays); constant, not at all."""
    layer_decay: Annotated[float, Field(ge=1)] = 1
    """The factor by which the peak rate of each layer group is lower than that of the one above: the head has
    `learning_rate`, the embeddings the lowest (ULMFiT, section 3.2: 2.6 for three layers). 1: one rate for all."""
    lora_rank: Annotated[int, Field(ge=0), Unhashed] = 0
    """0: every weight is tuned. A number: each linear layer of the body gets a low-rank adapter of that rank, which is
    tuned in its place, for models too large to be tuned whole (Hu et al. 2021, section 4.1: LoRA). The head is tuned
    whole, and embeddings, biases and norms stay. In the end the adapters are merged into the weights. Needs peft."""
    lora_alpha: Annotated[Count, Unhashed] = 16
    """What an adapter says is multiplied by this over its rank, so that another rank does not ask for another rate."""
    trainer: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Further fields of transformers' TrainingArguments: finetune.trainer.max_grad_norm=0.5"""

    def determinants(self) -> dict[str, Any]:
        """Return the fields that determine a result, as plain JSON values; those of adapters where there are any."""
        lora = {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha} if self.lora_rank else {}
        return {**super().determinants(), **lora, "trainer": training_arguments.determining(self.trainer)}


class LanguageModelling(Training):
    """Training a language model on unlabelled text."""

    objective: Literal["auto", "mlm", "clm", "denoising"] = "auto"
    """mlm: masked words are guessed (encoders); clm: the next token is (decoders); denoising: text with spans taken out
    is restored (encoder-decoders): span corruption where the tokenizer has sentinels, `<extra_id_0>` (T5), else text
    infilling (BART). auto: that of the architecture."""
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the corpus with every weight thawed."""
    learning_rate: Rate
    """Peak rate of those passes."""
    warmup_ratio: Ratio
    """Share of each phase's steps over which the rate rises; it then falls as `schedule` says."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay (AdamW); biases and norms are spared."""
    batch_size: Count
    """Rows per optimizer step, over all processes."""
    max_length: Annotated[int, Field(ge=16)]
    """Tokens a row, special tokens included: short documents share one, a longer one has several; none is dropped."""
    mask_probability: Annotated[float, Field(gt=0, lt=1)]
    """Share of the words that is masked (BERT: 0.15, BART: 0.3), or of the tokens (T5: 0.15)."""
    measurements: Annotated[Count, Unhashed] = 1
    """Times that the held-out text is measured in a phase, evenly spread, the last time at its end."""
    seed: Seed
    """Seed of the order, the masks and the new head."""


class Pretrain(LanguageModelling):
    """Training a language model from random weights on general text."""

    path: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] | None
    """What holds the general text, like corpus.path, and read with the other options of `corpus`; null for the corpus
    itself."""
    lora_rank: Annotated[Literal[0], Unhashed] = 0
    """Random weights are trained whole."""


class Adapt(LanguageModelling):
    """Continued pretraining on the corpus."""

    head_epochs: Annotated[float, Field(ge=0)]
    """Passes that train the language-model head alone, before the others, where the checkpoint lacks one."""
    head_learning_rate: Rate
    """Peak rate of those head passes."""
    general: Annotated[str | None, Unhashed]
    """General text, a file or a folder: half of its documents measure what the model forgets, the other half is what
    `replay_ratio` mixes in. A document of a txt file is a line. null: nothing is measured."""
    replay_ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of the rows of each pass that are general text, to forget less."""
    max_forgetting: Annotated[float, Field(gt=0)] | None
    """Training stops where the loss on the general text has risen by more than this, in nats a masked token or a token,
    since the head was trained; it is looked at `measurements` times. null: no bound."""

    @model_validator(mode="after")
    def _has_general_text(self) -> Adapt:
        if self.general is None and (self.replay_ratio or self.max_forgetting):
            raise ValueError("replay_ratio and max_forgetting need general text; give adapt.general=<file>")
        if self.max_forgetting and self.measurements < 2:
            raise ValueError("max_forgetting is looked at when measuring; give adapt.measurements=10")
        return self

    def determinants(self) -> dict[str, Any]:
        """Return the fields that determine a result; with `max_forgetting` also when it is looked at."""
        looked_at = {} if self.max_forgetting is None else {"measurements": self.measurements}
        return {**super().determinants(), **looked_at}


class Finetune(Training):
    """Fine-tuning on the labelled task."""

    epochs: Annotated[float, Field(gt=0)]
    """Passes over the training rows, with all that `unfreeze` thaws in the end."""
    learning_rate: Rate
    """Peak rate of each phase."""
    warmup_ratio: Ratio
    """Share of each phase's steps over which the rate rises; it then falls as `schedule` says."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay (AdamW); biases and norms are spared."""
    batch_size: Count
    """Texts per optimizer step, over all processes."""
    max_length: Count
    """Tokens per row, special tokens included. It is said how many rows are longer: these are cut, or read in windows
    where the task tells of single words."""
    max_steps: Count | None = None
    """At most so many optimizer steps in all phases of `unfreeze` together, however many rows there are; none before
    the last takes more than an equal share of them. null: no bound."""
    unfreeze: Annotated[tuple[int | Literal["all"], ...] | Literal["chain_thaw"], BeforeValidator(_rising)] = ("all",)
    """How many of the last layer groups each phase trains: the head is one, each layer is one, and the embeddings are
    the lowest. [all]: every weight from the start. [1, 2, all]: gradually (ULMFiT, section 3.3): the head alone for one
    pass, then the last layer too for one, then every weight for `epochs` passes; each phase has a schedule of its own.
    [1]: the head alone, always. chain_thaw: the head alone, then each other group alone from the lowest up, a pass
    each, then every weight for `epochs` passes (Felbo et al. 2017)."""
    pooling: Literal["default", "mean", "concat"] = "default"
    """What the head reads of a text. default: what the architecture's own head reads. mean: the mean of the hidden
    states over all tokens. concat: the hidden state of one token (the last where a model reads from left to right, else
    the first), and the maximum and the mean over all tokens; two layers with 50 units between them tell the answer from
    it (ULMFiT, section 3.3)."""
    contrast_epochs: Annotated[float, Field(ge=0)] = 0
    """Passes over the training rows before all others, in which every layer but the head learns to draw what the head
    reads of texts of one class together, and that of others apart (Khosla et al. 2020). For few labels, with
    `unfreeze=[1]` after it (Tunstall et al. 2022: SetFit). 0: none."""
    contrast_learning_rate: Rate = 5e-5
    """Peak rate of these passes."""
    new_epochs: Annotated[float, Field(ge=0), Unhashed] = 1
    """Passes over the training rows before all others, in which what is new in an encoder-decoder of `model.decoder`
    learns alone: cross-attention, a head that the checkpoint lacked, and the whole of a decoder from scratch."""
    new_learning_rate: Annotated[Rate, Unhashed] = 5e-4
    """Peak rate of these passes."""
    patience: Count | None = None
    """null: the last state is kept, which is right with few labels. A number: rows are watched, the state after the
    epoch that scored best on them is kept, and a phase stops after so many epochs without a better one; `epochs` is
    still what the rate falls over. The watched rows are 20 % of those of `task.train_samples` or `task.shots`, which
    are then not trained on; without these two, they are the validation rows."""
    seed: Seed
    """Seed of the order, the dropout and the new head."""

    @model_validator(mode="after")
    def _has_what_is_contrasted(self) -> Finetune:
        if self.contrast_epochs and self.pooling == "default":
            raise ValueError("contrast_epochs needs a head that pools the tokens; give finetune.pooling=mean or concat")
        return self

    @model_validator(mode="after")
    def _has_a_step_for_each_phase(self) -> Finetune:
        if self.max_steps is not None and self.unfreeze != "chain_thaw" and self.max_steps < len(self.unfreeze):
            raise ValueError(f"max_steps={self.max_steps} for the {len(self.unfreeze)} phases of unfreeze: give more")
        return self


class Evaluate(Section):
    """What `evaluate` scores, and on which rows."""

    split: Literal["test", "validation", "train"] = "test"
    """The rows of the task that are scored: test, validation or train (those whose labels were used)."""
    path: str | None = None
    """Another file with the columns of the task's, of which all rows are scored, whatever `split` says."""
    model: str | None = None
    """The directory that `finetune` made, or the Hub id that `push` uploaded to; null for this config's own model."""
    slices: tuple[str, ...] = ()
    """Columns of the rows' file that tell groups, such as [country, device]: each group's scores are told with their
    intervals, and the widest gap between two groups with how often chance alone makes one so wide."""
    probe: Literal["none", "names"] = "none"
    """names: first names, pronouns and the like are exchanged in the rows that hold them, men's for women's and white
    Americans' for black Americans', and the answers that change are counted."""


class Predict(Section):
    """What `predict` answers, and where the answers go."""

    input: str | None = None
    """A text; a file (csv, tsv, jsonl, parquet, conll, txt; also .gz, .bz2, .xz, .zst) with the task's column of texts;
    or - for standard input, one text a line."""
    pair: str | None = None
    """The second text, where `input` is the first of two: the context of a question, or a hypothesis."""
    output: str | None = None
    """A file that ends in .jsonl or .csv; null for JSON lines on standard output."""
    model: str | None = None
    """The directory that `finetune` made, or the Hub id that `push` uploaded to; null for this config's own model."""
    explain: bool = False
    """Tell which tokens each answer rests on, as `explanations` of each row and as an HTML page beside
    `predict.output`, or in runs/<name>/. Needs Captum, and takes far longer."""
    task: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Other values for options of the model's task that say how it answers: predict.task.aggregation=simple"""


Ref = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""The name of a branch or a tag."""


class Push(Section):
    """Which model `push` publishes, and what its author has to say of it."""

    stage: Literal["finetune", "adapt"] | None = None
    """finetune: the fine-tuned model; adapt: the adapted language model; null: the last one of the chain, which is the
    adapted one where there is no task."""
    notes: str | None = None
    """A Markdown file with paragraphs of your own, which go into the model card as they stand; it is only read."""


class Hub(Section):
    """Where `push` puts the model. The token comes from the environment (HF_TOKEN) or the Hub's own login alone."""

    repo: str | None = None
    """The repository: `name` (your own account) or `account/name`."""
    private: bool = True
    """Whether a newly made repository is private."""
    revision: Ref | None = None
    """The branch that is pushed to; it is made where it is not there. null: main."""
    pull_request: bool = False
    """Offer the model as a pull request, for others to merge, and leave the branch as it is."""
    tag: Ref | None = None
    """A tag for the pushed commit; it is made last, and never moved."""
    license: str | None = None
    """The licence of the model that is pushed, as the Hub spells it: mit. null: the card says that none was given."""
    dry_run: bool = False
    """List what would be uploaded, and stop."""

    @model_validator(mode="after")
    def _tags_what_is_there(self) -> Hub:
        if self.tag is not None and self.pull_request:
            raise ValueError("a pull request has no tag before it is merged; take hub.tag=null")
        return self


class Report(Section):
    """What the page of `report` is about."""

    runs: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] = ()
    """Names of finished runs, or directories: one alone, or several side by side; empty for this config's own."""
    output: str | None = None
    """An .html file; null for runs/<name>/report.html, or side-by-side.html for several. Figures go beside it."""
    explain: Annotated[int, Field(ge=0)] = 0
    """Of how many of the most confident errors it is told which tokens they rest on. Needs Captum, and the model."""


class LrFind(Section):
    """Which rates `lr_find` tries, and of which stage."""

    stage: Literal["finetune", "adapt"] = "finetune"
    """The stage whose learning_rate is looked for, in its last phase: finetune or adapt."""
    lowest: Rate = 1e-7
    """The rate of the first step; too low to learn anything, so that it is seen where learning begins."""
    highest: Rate = 0.1
    """The rate of the last step, if the test comes so far. AdamW moves a weight by about the rate in every step, and
    those of transformers begin at about 0.02 (BERT's initializer_range): at 0.1 nothing of them is left."""
    steps: Annotated[int, Field(ge=50)] = 100
    """Optimizer steps, over which the rate rises exponentially; fewer than 50 show their own noise."""

    @field_validator("highest")
    @classmethod
    def _above_lowest(cls, highest: float, info: ValidationInfo) -> float:
        if highest <= (lowest := info.data.get("lowest", 0)):
            raise ValueError(f"should be greater than lr_find.lowest={lowest:g}")
        return highest


class Study(Section):
    """What `study` compares: arms, each over the same seeds and numbers of labels."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the folder of tables and figures, runs/<name>-<study.name>; in no fingerprint."""
    arms: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    """The arms by their names, each with the options that make it: {not adapted: [adapt=none], adapted: []}. They come
    after those that were typed and those in `common`; what concerns a stage that an arm switches off (adapt.epochs=2
    and adapt=none) does not concern it."""
    common: tuple[str, ...] = ()
    """Options of all arms, which come after those that were typed."""
    baseline: str
    """The arm that the others are held against."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """Each draws other labelled rows (task.sample_seed), another head and another order (finetune.seed); all of them
    share one adapted model."""
    labels: Annotated[tuple[Count | Literal["all"], ...], Field(min_length=1)] | None
    """Numbers of labelled rows: [10, 100, all]; null for those of the task."""
    per_class: bool
    """Whether `labels` are numbers for each class."""
    search: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(lambda search: search or {})]
    """Options with the values that each arm tries before, at each number of labels, in all combinations:
    {finetune.learning_rate: [5e-5, 1e-4]}. What scores best on the validation rows is taken. null: no search. A mapping
    that is typed is merged with the YAML's, so that {} leaves that one as it is."""
    search_seeds: tuple[Seed, ...]
    """Seeds of that search: none of `seeds`."""
    references: tuple[Literal["linear", "setfit"], ...]
    """Models that are trained on the same rows, to hold the arms against. linear: one on TF-IDF, one on the frozen
    features of the checkpoint. setfit: the library SetFit, where it is installed and a row is one text with its class:
    250 steps of 16 pairs, which take minutes for each seed and number of labels."""
    keep_weights: Literal["best", "all", "none"]
    """Which fine-tuned models stay on the disk: the one that scores best on the validation rows, all, or none. Scores,
    predictions and manifests always do."""

    @field_validator("seeds", "labels", "search_seeds")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is not None and len(set(values)) < len(values):
            raise ValueError("should be distinct")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if self.baseline not in self.arms:
            raise ValueError(f"the baseline '{self.baseline}' is no arm{nearest(self.baseline, self.arms)}")
        if self.search and not self.search_seeds:
            raise ValueError("a search needs search_seeds")
        if self.search and set(self.search_seeds) & set(self.seeds):
            raise ValueError("search_seeds should be others than the seeds that are reported")
        return self


class Dimension(Section):
    """One dimension of the space of a sweep: a range, or choices."""

    low: int | float | None = None
    """The lowest value; whole numbers on both ends make a range of whole numbers."""
    high: int | float | None = None
    """The highest value."""
    log: bool = False
    """Whether the logarithm is searched evenly, as is right for rates."""
    step: int | float | None = None
    """The distance between values; null for any value, or for every whole number."""
    choices: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """The values, where it is no range."""
    when: Annotated[dict[str, Any], Field(default_factory=dict)]
    """What dimensions above it must be for this one to count, each a value or a list: {finetune.pooling: concat}."""

    @model_validator(mode="before")
    @classmethod
    def _of_choices(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _is_one_kind(self) -> Dimension:
        if self.choices is not None:
            if {self.low, self.high, self.step} != {None} or self.log:
                raise ValueError("has choices, so it has no low, high, step and log")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low should be less than high, and they are {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log goes with a low above 0, and without step")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, 1 if self.step is None else self.step))


class Sweep(Section):
    """What `sweep` searches by Optuna, how, and for how long."""

    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """The options that are searched, each with a range {low: 1e-6, high: 1e-3, log: true} or choices [8, 16, 32]; a
    dimension may count only `when` others have a value."""
    metric: str | None = None
    """The score on the validation rows that trials are ranked by; null for that of the task."""
    sampler: str = "TPE"
    """Optuna's sampler, without its last word: TPE, Random, GP, CmaEs, QMC, BruteForce."""
    sampler_options: Annotated[dict[str, Any], Field(default_factory=dict)]
    """What that sampler takes: {n_startup_trials: 20}. A seed would have every worker draw the same."""
    pruner: Literal["none", "median", "asha", "hyperband"] = "median"
    """What stops a bad trial early. median: it is worse than half of the others were at that point, from the sixth
    trial on; asha and hyperband: it is not among the best half, at 1, 2, 4, ... measurements (Li et al. 2018)."""
    pruner_options: Annotated[dict[str, Any], Field(default_factory=dict)]
    """What that pruner of Optuna's takes: {n_startup_trials: 10}, {reduction_factor: 4}."""
    measurements: Count = 4
    """Times that a model is scored on the validation rows, evenly spread, the last time at its end: where a trial may
    be stopped."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """A trial is one model for each, and its score their mean: each draws other labelled rows (task.sample_seed),
    another head and another order (finetune.seed)."""
    trials: Count | None = 50
    """Trials in all, over all calls and workers; those that were stopped early or failed count too. null: no bound."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours after which a worker begins no new trial; null: no bound."""
    max_failures: Annotated[int, Field(ge=0)] = 5
    """Failed trials that are put up with; with one more the sweep stops."""
    parallel: Count = 1
    """Trials that a worker gives to Hydra's launcher together: for hydra/launcher=joblib or submitit_slurm."""
    storage: str | None = None
    """Where the trials are kept: null for journal.log in runs/<name>-sweep, or the URL of a database that many machines
    share, postgresql://user@host/name. Its password is better in ~/.pgpass."""
    heartbeat_seconds: Count = 60
    """Seconds between two signs of life of a trial in a database; after three without one it is taken for dead."""
    keep_weights: Literal["best", "all", "none"] = "best"
    """Which fine-tuned models stay on the disk: those of the best trial, all, or none. Scores and predictions do."""

    @model_validator(mode="after")
    def _ends(self) -> Sweep:
        if self.trials is None and self.max_hours is None:
            raise ValueError("needs trials, max_hours or both")
        for number, (key, dimension) in enumerate(self.space.items()):
            above = list(self.space)[:number]
            for other in dimension.when:
                if other not in above:
                    there = f"{nearest(other, above)} (there are: {', '.join(above) or 'none'})"
                    raise ValueError(f"{key}: when: no dimension above it is '{other}'{there}")
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[Seed, ...]) -> tuple[Seed, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("should be distinct")
        return seeds
