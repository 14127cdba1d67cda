"""What differs between the artefact of a config and others, in the words of its options."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ulmfit_style.artefacts.directory import LIBRARIES, MANIFEST, RECIPE, Artefact, damage, read_json, versions
from ulmfit_style.compute import devices, processes
from ulmfit_style.config.section import sections_of, spelled


def why_missing(artefact: Artefact, recipe: Mapping[str, Any]) -> str:
    """Return why an artefact is not there: not finished, made with other options, or nothing like it was made.

    Args:
        recipe: The recipe of its config.
    """
    if reason := damage(artefact.directory):
        return f"{artefact.directory} is damaged: {reason}"
    if artefact.measured:
        return f"{artefact.directory} holds its scores, but a study did not keep its weights (study.keep_weights)"
    if artefact.directory.exists():
        return f"{artefact.directory} was begun, but not finished"
    if (nearest := _nearest(artefact, recipe)) is None:
        return f"{artefact.directory} is not there"
    directory, differences = nearest
    return f"{artefact.directory} is not there; the nearest is {directory}: {', '.join(differences)}"


def environment_changes(artefact: Artefact, recipe: Mapping[str, Any]) -> str | None:
    """Return how libraries, device or processes differ from those that made a finished artefact; None if they do not.

    The device, and a number of processes that nobody gave, are compared only if torch is imported anyway.

    Args:
        recipe: That of the config.
    """
    manifest, here, device_now = read_json(artefact.directory / MANIFEST), versions(), devices.device()
    pairs: list[tuple[str, Any, Any]] = [(f"{name} ", manifest["versions"][name], here[name]) for name in LIBRARIES]
    if device_now is not None and manifest["device"] is not None:
        pairs.append(("", manifest["device"], device_now))
    if artefact.stage in ("pretrain", "adapt", "finetune"):
        processes_now = recipe["processes"] or (manifest["processes"] if device_now is None else processes.count())
        made_by = yaml.safe_load((artefact.directory / RECIPE).read_text(encoding="utf-8"))
        pairs.append(("processes=", manifest["processes"], processes_now))
        pairs += [(f"{name}=", made_by.get(name, recipe[name]), recipe[name]) for name in ("micro_batch_size", "fast")]
    differences = [f"{name}{spelled(then)} (here {spelled(now)})" for name, then, now in pairs if then != now]
    return f"made with {', '.join(differences)}" if differences else None


def _nearest(artefact: Artefact, recipe: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Return the finished artefact of the same stage with the fewest differences, and these, in words.

    Of equally near ones it is the newest.

    Args:
        recipe: The recipe of the config of `artefact`, to compare with those of the others.
    """
    candidates = []
    for manifest in (path for path in artefact.runs.glob(f"{artefact.stage}-*/{MANIFEST}") if not damage(path.parent)):
        other_recipe = yaml.safe_load((manifest.parent / RECIPE).read_text(encoding="utf-8"))
        sections = sections_of(artefact.stage)
        options = [line for key in sections for line in changes(other_recipe.get(key), recipe.get(key), key)]
        this, other = artefact.determinants, read_json(manifest)["determinants"]
        names = [name for name in {**this, **other} if this.get(name) != other.get(name)]
        differences = options or [f"what it was made from has changed: {', '.join(names)}"]
        candidates.append((len(differences), -manifest.stat().st_mtime, manifest.parent, differences))
    return min(candidates)[2:] if candidates else None


def changes(other: Any, this: Any, key: str = "") -> Iterator[str]:
    """Compare two values of recipes, all the way down, and yield how the other one differs.

    Args:
        key: The option that they are the values of; "" for several sections, by their names.
    """
    if isinstance(other, dict) and isinstance(this, dict):
        for name in {**this, **other}:
            yield from changes(other.get(name), this.get(name), f"{key}.{name}".lstrip("."))
    elif None in (other, this) and (isinstance(other, dict) or isinstance(this, dict)):
        yield f"{key}=none" if other is None else f"{key} is not none"
    elif other != this:
        yield f"{key}={spelled(other)} instead of {spelled(this)}"
