r"""The head that ships for the embedded model: `python bench/language_model_head.py OUTPUT [key=value ...]`.

It trains the missing language-model head of a checkpoint alone, on `corpus.path`, with the body frozen, and writes it
in half precision, with the SHA-256 of the checkpoint that it belongs to. It prints the loss on held-out documents.
The one that ships was made so (`ulmfit_style/general/README.md`):

    python bench/language_model_head.py ulmfit_style/general/minilm_head.safetensors task=none corpus=file \
        'corpus.path=[books.jsonl.xz, wordnet_glosses.jsonl.xz]' corpus.max_documents=60 adapt.batch_size=32
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from ulmfit_style.artefacts.fingerprint import file_digest
from ulmfit_style.cli.compose import compose
from ulmfit_style.errors import UserError
from ulmfit_style.models import shipped_head
from ulmfit_style.models.checkpoints import WEIGHTS
from ulmfit_style.stages.table import resolve
from ulmfit_style.training.language_model import prepare
from ulmfit_style.training.phases import train


def main(output: Path, overrides: list[str]) -> None:
    """Train the head, and write it."""
    shipped_head.add = lambda loaded, source: loaded  # a new head is trained, not the one that ships already
    resolved = resolve(compose(overrides))
    config = resolved.config
    assert config.adapt is not None
    source = resolved.source_of("adapt").directory
    prepared = prepare(config, config.adapt, source, resolved.corpus, resolved.general_text)
    head_alone = replace(prepared.plan, phases=prepared.plan.phases[:1])
    train(head_alone, config.runs / "language_model_head", prepared.measure)
    weights = prepared.plan.model.state_dict()
    head = {name: weights[name].to(torch.float16).contiguous() for name in sorted(prepared.missing)}
    save_file(head, output, {"checkpoint": file_digest(source / WEIGHTS), "tokens": f"{prepared.token_count}"})


try:
    main(Path(sys.argv[1]), sys.argv[2:])
except UserError as error:
    sys.exit(f"bench/language_model_head.py: {error}")
