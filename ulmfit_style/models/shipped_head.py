"""The language-model head that ships for the embedded checkpoint, which comes without one."""

from pathlib import Path

from ulmfit_style.artefacts.fingerprint import file_digest
from ulmfit_style.models.checkpoints import WEIGHTS, LoadedModel

FILE = Path(__file__).parents[1] / "general" / "minilm_head.safetensors"
"""Its weights, and the SHA-256 of those of the checkpoint that it was trained on (`general/README.md` says how)."""


def add(loaded: LoadedModel, source: Path) -> LoadedModel:
    """Return a language model with the head that ships, where it lacks one and has the weights that this belongs to.

    Args:
        source: The directory of the checkpoint.
    """
    from safetensors import safe_open

    with safe_open(FILE, "pt") as head:
        names = set(head.keys())
        weights = source / WEIGHTS  # which are in several files where a checkpoint is large
        if loaded.missing != names or not weights.exists() or file_digest(weights) != head.metadata()["checkpoint"]:
            return loaded
        loaded.model.load_state_dict({name: head.get_tensor(name) for name in names}, strict=False)
    return loaded._replace(missing=set())
