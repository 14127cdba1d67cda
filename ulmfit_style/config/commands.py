"""What is done with a finished model: evaluate, predict, push, report; and with texts that have no labels yet."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ulmfit_style.config.section import AS_FOUND, Count, FileFormat, Section, one_or_several


class Ensemble(Section):
    """Which finished models `ensemble` makes one of, that answers by the mean of theirs."""

    members: Annotated[tuple[str, ...], BeforeValidator(one_or_several)] = ()
    """Two or more fine-tuned models of the same kind of task and the same labels: names of runs, directories, or Hub
    ids. The test rows are those of the first one, where no task is chosen."""


class Evaluate(Section):
    """What `evaluate` scores, and on which rows."""

    split: Literal["test", "validation", "train"] = "test"
    """The rows of the task that are scored: test, validation or train (those whose labels were used)."""
    path: str | None = None
    """Another file with the columns of the task's, of which all rows are scored, whatever `split` says."""
    format: FileFormat = AS_FOUND
    """How that file is read, where it is not found out of it; as `task.format`."""
    model: str | None = None
    """The directory that `finetune` made, or the Hub id that `push` uploaded to, whose task is taken where none is
    chosen; null for this config's own model."""
    slices: tuple[str, ...] = ()
    """Columns of the rows' file that tell groups, such as [country, device]: each group's scores are told with their
    intervals, and the widest gap between two groups."""
    probe: Literal["none", "names"] = "none"
    """names: first names, pronouns and the like are exchanged in the rows that hold them, men's for women's and white
    Americans' for black Americans', and the answers that change are counted."""


def _probability_or_precision(value: float | str | None) -> float | str | None:
    is_precision = isinstance(value, str) and re.fullmatch(r"precision:0?\.\d+", value)
    if value is None or is_precision or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError("should be a probability between 0 and 1, or precision:0.95")


class Predict(Section):
    """What `predict` answers, and where the answers go."""

    input: str | None = None
    """A text as it is typed; a file (csv, tsv, json, jsonl, parquet, conll, xlsx, txt; also .gz, .bz2, .xz, .zip) with
    the task's column of texts; or - for standard input, one text a line."""
    format: FileFormat = AS_FOUND
    """How that file is read, where it is not found out of it; as `task.format`."""
    pair: str | None = None
    """The second text, where `input` is the first of two: the context of a question, or a hypothesis."""
    output: str | None = None
    """A file that ends in .jsonl or .csv; null for JSON lines on standard output."""
    model: str | None = None
    """The directory that `finetune` made, or the Hub id that `push` uploaded to; null for this config's own model."""
    threshold: Annotated[float | str | None, AfterValidator(_probability_or_precision)] = None
    """The lowest probability with which a class is answered; below it, a row has its label as `guess` alone. A number,
    or precision:0.95 for that from which on such a share of the answers is right, chosen on the validation rows and
    measured on the test rows. null: every row is answered."""
    explain: bool = False
    """Tell which tokens each answer rests on, as `explanations` of each row and as an HTML page beside
    `predict.output`, or in runs/<name>/. Needs Captum, and takes far longer. For a model that writes, they are the
    tokens of its input that it looked at for each token it wrote; that needs no Captum. `report` explains five test
    rows in this way."""
    task: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Other values for options of the model's task that say how it answers: predict.task.aggregation=simple"""


class Export(Section):
    """What `export` writes of the fine-tuned model, for use without this program and without torch."""

    to: Literal["onnx"] = "onnx"
    """onnx: files for onnxruntime and transformers.js, in full and with weights of 8 bits."""
    features: bool = False
    """Write its body alone, which makes vectors of texts (pipeline feature-extraction), and not its answers."""


class Serve(Section):
    """Where `serve` listens, and what it takes. The model and how it answers are `predict.model` and `predict.task`."""

    host: str = "127.0.0.1"
    """The address: 127.0.0.1 for this machine alone; 0.0.0.0 for every one that can reach it, which then has to send
    the token of the environment's ULMFIT_STYLE_TOKEN, or one that is made up and printed."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """The port; 0: one that is free."""
    max_mb: Annotated[float, Field(gt=0)] = 10
    """Megabytes that a request may have, or a file."""


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
    license: str | None = None
    """The licence of the model that is pushed, as the Hub spells it: mit. null: the card says that none was given."""
    language: tuple[str, ...] = ()
    """The model's languages, as the Hub spells them: [en, de]. Empty: the card says that they were not recorded."""
    examples: tuple[str, ...] = ()
    """Texts of yours, for the Hub's page to try the model on: it shows them to everybody."""
    dry_run: bool = False
    """List what would be uploaded, and stop."""
    onnx: bool = False
    """Upload the files of `export` too, in the folder onnx."""
    space: bool = False
    """Upload a Space of the same name too, on which `serve` answers with the model; a dry run leaves its files in
    runs/<name>/space/."""


class Report(Section):
    """What the page of `report` is about."""

    runs: Annotated[tuple[str, ...], BeforeValidator(one_or_several)] = ()
    """Names of finished runs, or directories: one alone, or several side by side; empty for this config's own."""


class Select(Section):
    """Which texts `select` picks to be labelled, and where they go."""

    count: Count = 50
    """How many texts are picked."""
    strategy: Literal["auto", "random"] = "auto"
    """auto: what was the best in simulations: at first the most typical text of each cluster of texts, then the middles
    of clusters of the texts of whose class the model is the least sure. random: by chance, as rows have to be chosen
    that are to be scored."""
    output: str = "to-label.xlsx"
    """Where the texts are written, with an empty column of labels: a new file that ends in .xlsx or .csv."""
    merge: str | None = None
    """Such a file, filled in: it is checked with the rows that there are, and what it brings is told."""
