"""Pretrained checkpoints: where their files are, and what identifies them in a fingerprint."""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ulmfit_style.artefacts.directory import NOT_SEALED, RECIPE, no_run, read_json, require_intact
from ulmfit_style.artefacts.fingerprint import digest, file_digest
from ulmfit_style.artefacts.seal import sha256
from ulmfit_style.config.section import ANSWERING
from ulmfit_style.config.training import Model
from ulmfit_style.console import say_once
from ulmfit_style.errors import UserError, listed, reworded
from ulmfit_style.models import architectures, embedded, gguf
from ulmfit_style.tasks import types

BODY = "body"
"""The prefix of the weights of a pooled model's body, and the part of its config that is the body's."""

RUNS = Path("runs")
"""Where artefacts go by themselves."""

WEIGHTS = "model.safetensors"
ENDINGS = (".safetensors", ".json", ".txt", ".model", ".spm", ".jinja", RECIPE)
"""What a checkpoint's files end in: weights, configs, what tokenizers read, and how this package made it."""


class Checkpoint(NamedTuple):
    """The files of a model and its tokenizer."""

    directory: Path
    identity: Any
    """What stands for the checkpoint in a fingerprint, as JSON: a Hub commit, a digest of files, or an artefact."""


@cache
def resolve(model: Model, option: str, *, is_single: bool = True) -> Checkpoint:
    """Find a checkpoint's files, downloading them from the Hub where the config names a Hub id.

    Those of a GGUF file are made when it is first used.

    Args:
        option: What the user names the checkpoint by, for error messages.
        is_single: Whether an ensemble is refused.

    Raises:
        UserError: if there is no such checkpoint.
    """
    assert model.checkpoint is not None  # random weights have none
    if model.checkpoint.endswith(".gguf"):
        file = _on_disk(model.checkpoint)
        if not file.is_file():
            raise UserError(f"{option}={model.checkpoint}: there is no such file")
        made = gguf.checkpoint(file, file_digest(file))
        return Checkpoint(made.directory, {made.stage: made.fingerprint})
    directory = find(model, f"{option}={model.checkpoint}", is_single=is_single)
    # The Hub's cache names the folder of a snapshot by its commit.
    if is_on_hub(model):
        return Checkpoint(directory, {"checkpoint": f"{model.checkpoint}@{directory.name}"})
    paths = sorted(path for folder in (directory, *members(directory)) for path in folder.iterdir())
    # A manifest tells the time too, so the same model made again has another one.
    names = [path for path in paths if path.name.endswith(ENDINGS) and path.name not in NOT_SEALED]
    digests = {path.relative_to(directory).as_posix(): sha256(path) for path in names if path.is_file()}
    return Checkpoint(directory, {"checkpoint": digest(digests)[:16]})


def members(directory: Path) -> list[Path]:
    """Return the directories of the models that an ensemble consists of; none where there is a single model."""
    return sorted(directory.glob("member-*"), key=lambda folder: (len(folder.name), folder.name))


def find(model: Model, place: str, *, is_single: bool = True) -> Path:
    """Return the directory of a checkpoint, or of an ensemble, without reading what is in it.

    Args:
        place: The option by which it is named, with what the user gave, for error messages.
        is_single: Whether an ensemble is refused.

    Raises:
        UserError: if there is no such checkpoint, or it has no weights in safetensors.
    """
    if is_on_hub(model):
        directory = _from_hub(model, [f"*{ending}" for ending in ENDINGS], place)
    else:
        directory = _on_disk(str(model.checkpoint))
        require_intact(directory, large="")
        for folder in (directory, *members(directory)):
            _require_own_files(folder, place)
    if (models := members(directory)) and is_single:
        raise UserError(f"{place}: is an ensemble; name one of its models: {', '.join(map(str, models))}")
    for folder in models or [directory]:
        if not (folder / "config.json").exists():
            raise UserError(f"{place}: holds no config.json")
        if not (folder / WEIGHTS).exists() and not (folder / f"{WEIGHTS}.index.json").exists():
            raise UserError(f"{place}: holds no {WEIGHTS}; other formats are not read")
    return directory


def _require_own_files(directory: Path, place: str) -> None:
    """Check that a checkpoint consists of files of its folder: a link, or a list of weights, may lead anywhere.

    Raises:
        UserError: naming the file.
    """
    # In the Hub's cache, a folder of links stands beside one of files; the folders of an ensemble's members are in it.
    own = {directory.resolve(), *(parent / "blobs" for parent in directory.resolve().parents[1:3])}
    index = directory / f"{WEIGHTS}.index.json"
    try:
        shards = {str(name) for name in read_json(index)["weight_map"].values()} if index.exists() else set()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place}: {index.name} does not list weights; take another copy of it") from error
    names = [path.name for path in directory.glob("*") if path.name.endswith(ENDINGS)]
    for path in (directory / name for name in [*names, *shards]):
        if not path.is_file() or path.resolve().parent not in own:
            raise UserError(f"{place}: {path.resolve()} is not a file of this folder; put a copy there")


def _on_disk(name: str) -> Path:
    return embedded.locate(name) if name.startswith("package:") else Path(name).expanduser()


def find_finetuned(source: str, option: str, runs: Path = RUNS, *, is_single: bool = False) -> Path:
    """Return where a fine-tuned model is, or an ensemble: the directory, or that of the Hub id that `push` uploaded to.

    Args:
        source: The directory, the Hub id, or the name of a run.
        option: What the user names it by, for error messages.
        runs: The folder of all artefacts.
        is_single: Whether an ensemble is refused.

    Raises:
        UserError: if there is no such model, or it was not made by `finetune`.
    """
    model, place = Model(checkpoint=of_run(source, runs)), f"{option}={source}"
    if is_on_hub(model) and source.count("/") != 1:
        raise UserError(f"{place}: {no_run(runs, source, ANSWERING)}")
    directory = find(model, place, is_single=is_single)
    if not (directory / RECIPE).exists():
        raise UserError(f"{place}: holds no {RECIPE}, so it was not made by `finetune`")
    require_intact(directory)
    return directory


def of_run(source: str, runs: Path = RUNS) -> str:
    """Return the fine-tuned model of the run that is named so, if there is one, else what is named itself."""
    linked = [runs / source / stage for stage in ANSWERING if not Path(source).exists()]
    return next((str(link) for link in linked if link.is_dir()), source)


class LoadedModel(NamedTuple):
    """A model with a checkpoint's weights."""

    model: Any  # PreTrainedModel, whose attributes are typed as unions
    missing: set[str]
    """The names of the parameters that the checkpoint lacks."""
    unused: set[str]
    """The names of the checkpoint's weights that the model has no place for, such as a pooler's in a language model."""


def load_model(auto_class: Any, source: Path, *, whole: bool = False, **settings: Any) -> LoadedModel:
    """Return a checkpoint's model.

    Args:
        auto_class: The transformers class that loads it.
        whole: Load the head of a pooled model too, which is left out otherwise: its body can have any head.
        settings: Values for its config. Weights whose sizes they change, such as those of a head, are new. The outputs
            of a head for the same labels are put in their order; one for other labels gets new outputs.

    Raises:
        UserError: if the checkpoint lacks weights of the body.
    """
    import torch
    from transformers import AutoConfig

    require_intact(source)
    architectures.register()
    config, names = AutoConfig.from_pretrained(source, trust_remote_code=False), None
    labels = config.id2label
    if is_pooled(source) and not whole:
        config, names = config.body, {rf"^{BODY}\.": ""}
        config.id2label = labels  # of the head that is kept beside a language model
    elif auto_class.__name__ == "AutoModelForQuestionAnswering":  # whose body Llama and its kin call by another name
        names = {r"^model\.": f"{auto_class._model_mapping[type(config)].base_model_prefix}."}
    config.update(settings)
    model, info = auto_class.from_pretrained(
        source,
        config=config,
        key_mapping=names,
        output_loading_info=True,
        dtype=torch.float32,  # or the weights of a checkpoint in bf16 would be trained in bf16
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they count as missing
    )
    if names is not None:
        model._weight_conversions = None  # or the names would be changed back when it is saved
    absent, unused = set(info["missing_keys"]), set(info["unexpected_keys"])
    missing = absent | {name for name, *_ in info["mismatched_keys"]}
    _require_body(model, source, missing, unused)
    if "id2label" in settings:
        name, output = _output(model)
        if f"{name}.weight" not in absent:
            trained = {part: weight.data.clone() for part, weight in output.named_parameters()}
            if f"{name}.weight" in missing:  # it has as many outputs as there are labels now
                trained = {part: next(iter(_weights(source, {f"{name}.{part}"})))[1] for part in trained}
            _take(model, output, trained, _order(labels, model.config.id2label))
    return LoadedModel(model, missing, unused)


def _require_body(model: Any, source: Path, missing: Collection[str], unused: Collection[str]) -> None:
    """Raise if weights of the body are missing: heads, poolers and cross-attention may be new, and nothing else."""
    body, new = {id(weight) for weight in model.base_model.parameters()}, re.compile("pooler|cross|lm_head|qa_outputs")
    inside = [name for name, weight in model.named_parameters() if name in missing and id(weight) in body]
    if lacking := [name for name in inside if not new.search(name)]:
        others = f"; it has others that fit nowhere: {listed(sorted(unused), 3)}" if unused else ""
        problem = f"{len(lacking):,} weights of the body are missing, or of another size: {listed(lacking, 3)}{others}"
        raise UserError(f"{source}: {problem}; they would begin at random, so name a checkpoint that is whole")


def _output(model: Any) -> tuple[str, Any]:
    """Return the last layer of the head, with its name."""
    from torch import nn

    body = set(model.base_model.modules())
    named: Iterable[tuple[str, Any]] = model.named_modules()
    return [(name, layer) for name, layer in named if isinstance(layer, nn.Linear) and layer not in body][-1]


def _order(labels: Mapping[int, str], wanted: Mapping[int, str]) -> list[int | None]:
    """Return which output of a trained head is for each label that is wanted; None for a label that it does not know.

    Args:
        labels: The names of its outputs.
    """
    # Outputs that were given no names have the library's: LABEL_0, LABEL_1.
    theirs, ours = ([str(name).casefold().removeprefix("label_") for name in of.values()] for of in (labels, wanted))
    if theirs == ours or len(theirs) == len(ours) == 1:
        return list(range(len(ours)))
    is_named = sorted(theirs) == sorted(ours) or "LABEL_0" not in labels.values()
    order = [theirs.index(name) if name in theirs and is_named else None for name in ours]
    new = order.count(None)
    told = f"head keeps {len(ours) - new} of its {len(theirs)} outputs, and gets {new} new ones"
    if new == len(ours):
        told = f"head has other labels ({listed(labels.values())}), and is replaced by a new one"
    elif len(ours) == len(theirs) and not new:
        told = f"outputs are put in the order of the labels: {listed(wanted.values())}"
    say_once(f"  the checkpoint's {told}")
    return order


def _take(model: Any, output: Any, trained: Mapping[str, types.Tensor], order: Sequence[int | None]) -> None:
    """Give each output of a head the trained weights of its label; those of labels that it did not know are new."""
    if None in order:
        for weight in output.parameters():
            weight._is_hf_initialized = False  # or the library would leave it as it is
        model._init_weights(output)
    known = {ours: theirs for ours, theirs in enumerate(order) if theirs is not None}
    for name, weight in output.named_parameters():
        weight.data[list(known)] = trained[name][list(known.values())].to(weight.dtype)


def load_pooled(
    source: Path, pooling: Literal["concat", "mean"], head: Mapping[str, Any], *, is_solved: bool = False
) -> LoadedModel:
    """Return a checkpoint's body under a head that pools it, and the names of the parameters that the body lacked.

    The head is new, but for the outputs of the labels that the checkpoint's own head of the same pooling knows.

    Args:
        pooling: As `PooledConfig.pooling`.
        head: What the config tells of the outputs, as `Task.head` has it.
        is_solved: Whether the head is solved before all else, so that nothing of another one matters.
    """
    from transformers import AutoConfig, AutoModel

    from ulmfit_style.models.pooling import PooledForSequenceClassification

    body, missing, unused = load_model(AutoModel, source)
    body.config.name_or_path = ""  # a path of this disk, which would be saved
    kind = architectures.architecture(body.config.model_type).kind
    by_kind: Literal["first", "last"] = "last" if kind == "decoder" else "first"
    summary_token = getattr(body.config, "summary_token", by_kind)  # which may go by its direction
    # A body of this package brings its own code along.
    pooled = getattr(body, "pooled_class", PooledForSequenceClassification)
    config = pooled.config_class(body=body.config.to_dict(), pooling=pooling, summary_token=summary_token, **head)
    model = pooled(config, body)
    new = {name: weight for name, weight in model.state_dict().items() if name.startswith("head.")}
    trained = {name: weight for name, weight in _weights(source, unused) if name in new}
    fits = {name: weight.shape[1:] for name, weight in trained.items()} == {name: new[name].shape[1:] for name in new}
    if fits and not is_solved:
        last = f"head.{len(model.head) - 1}."
        order = _order(AutoConfig.from_pretrained(source, trust_remote_code=False).id2label, head.get("id2label", {}))
        _take(model, model.head[-1], {part: trained[last + part] for part in ("weight", "bias")}, order)
        below = {name: trained[name] for name in new if not name.startswith(last) and set(order) != {None}}
        model.load_state_dict(below, strict=False)
    return LoadedModel(model, {f"{BODY}.{name}" for name in missing}, unused - set(trained))


def save(model: types.Model, directory: Path, source: Path, unused: set[str]) -> None:
    """Save a model, and with it those weights of its checkpoint that it has no place for.

    A later stage may load these: `AutoModelForMaskedLM` drops BERT's pooler, which a classifier reads. Without it the
    classifier of an adapted model would begin with a random pooler, and that of the checkpoint with a trained one.

    Args:
        source: The directory of the checkpoint that the model was made from.
        unused: As `LoadedModel.unused`.
    """
    prefix = f"{model.base_model_prefix}."
    # A checkpoint of the body alone names its weights without the prefix.
    has_prefix = is_pooled(source) or any(name.startswith(prefix) for name, _ in _weights(source))
    rest = {name if has_prefix else prefix + name: weight for name, weight in _weights(source, unused)}
    model.save_pretrained(directory, state_dict={**model.state_dict(), **rest} if rest else None)


def _weights(source: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, types.Tensor]]:
    """Yield the weights of a checkpoint with their names: those of these names, or all."""
    from safetensors import safe_open

    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            held = list(file.keys())
            yield from ((name, file.get_tensor(name)) for name in held if names is None or name in names)


def tokenizer(directory: Path) -> types.Tokenizer:
    """Return the tokenizer of a checkpoint.

    Raises:
        UserError: if it needs a package that is not installed, as Marian's needs sentencepiece.
    """
    from transformers import AutoConfig, AutoTokenizer

    if (directory / "config.json").exists() and body_config(directory).get("model_type") in architectures.OWN:
        architectures.register()
    # Else transformers warns of a type that it does not know.
    body = {"config": AutoConfig.for_model(**body_config(directory))} if is_pooled(directory) else {}
    with reworded(f"{directory}: its tokenizer needs a package that is not installed: ", ImportError):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, **body)


def model_type(model: Model, option: str = "model.checkpoint") -> str:
    """Return the `model_type` of a checkpoint's config.json, such as "bert"; of a pooled model, its body's.

    Args:
        option: What the user names it by, for error messages.

    Raises:
        UserError: if there is no such checkpoint, or it does not say.
    """
    config = described(model, option)
    if "model_type" not in config:
        raise UserError(f"{option}={model.checkpoint}: its config.json has no model_type")
    return str(config["model_type"])


def described(model: Model, option: str = "model.checkpoint") -> Mapping[str, Any]:
    """Return what the config of a checkpoint's body says, or the architecture of random weights.

    Raises:
        UserError: if there is no such checkpoint.
    """
    return model.architecture or body_config(resolve(model, option).directory)


def is_pooled(directory: Path) -> bool:
    """Tell whether a checkpoint has a head of `ulmfit_style/models/pooling.py`."""
    config = directory / "config.json"  # a tokenizer by itself has none
    return config.exists() and read_json(config).get("model_type") == "pooled"


def body_config(directory: Path) -> dict[str, Any]:
    """Return the config.json of a checkpoint; of a pooled model, the part on its body."""
    config: dict[str, Any] = read_json(directory / "config.json")
    return config[BODY] if is_pooled(directory) else config


def sentinels(tokenizer: types.Tokenizer) -> list[int]:
    """Return the tokens that stand for the spans taken out of a text (T5); none where one mask stands for all (BART).

    Raises:
        UserError: if the tokenizer has neither.
    """
    vocabulary = tokenizer.get_vocab()
    ids: list[int] = []
    # mT5's are ordinary tokens, with a blank before them.
    while (token := vocabulary.get(f"<extra_id_{len(ids)}>", vocabulary.get(f"▁<extra_id_{len(ids)}>"))) is not None:
        ids.append(token)
    if not ids and tokenizer.mask_token_id is None:
        problem = "has neither sentinels (<extra_id_0>) nor a mask, so no text can be taken out to be restored"
        raise UserError(f"adapt: the tokenizer {problem}; choose another model, or adapt=none")
    return ids


def positions(model: Model, option: str = "model.checkpoint") -> float:
    """Return the most tokens that an architecture reads, by its config and its tokenizer."""
    configs = [described(model, option)]
    if model.checkpoint is not None and (path := resolve(model, option).directory / "tokenizer_config.json").exists():
        configs.append(read_json(path))
    # RoBERTa's config counts two positions that no text has; its tokenizer does not.
    names = ("max_position_embeddings", "n_positions", "model_max_length")
    return min((values[name] for values in configs for name in names if values.get(name)), default=math.inf)


def is_on_hub(model: Model) -> bool:
    """Tell whether a checkpoint is on the Hub: it is no directory, no GGUF file and in no package."""
    name = model.checkpoint
    return not (name is None or name.endswith(".gguf") or name.startswith("package:") or _on_disk(name).is_dir())


def is_reachable(model: Model) -> bool:
    """Tell whether a checkpoint is on the disk, or the Hub can be asked for it."""
    try:
        return not is_on_hub(model) or bool(commit(model))
    except UserError:
        return False


def commit(model: Model, option: str = "model.checkpoint") -> str:
    """Return the commit that a checkpoint of the Hub means now; without the network, what it meant when last asked for.

    Args:
        option: What the user names it by, for error messages.

    Raises:
        UserError: if there is no such checkpoint.
    """
    return _from_hub(model, ["config.json"], f"{option}={model.checkpoint}").name


def _from_hub(model: Model, patterns: Sequence[str], place: str) -> Path:
    from huggingface_hub import snapshot_download

    # Errors of the network, the Hub, or of a name that is none.
    with reworded(f"{place}: is no directory, and cannot be had from the Hub (", OSError, ValueError, after=")"):
        return Path(snapshot_download(str(model.checkpoint), revision=model.revision, allow_patterns=list(patterns)))
