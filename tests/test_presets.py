"""The presets of conf/ that come from the Hub."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import yaml

from ulmfit_style.cli import CONF
from ulmfit_style.data.hub import PREFIX, HubFile, parse
from ulmfit_style.models.checkpoints import WEIGHTS


class Preset(NamedTuple):
    name: str
    kind: str
    repository: str
    revision: str
    files: tuple[str, ...]


def presets() -> Iterator[Preset]:
    for path in sorted(CONF.glob("model/*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        checkpoint = values.get("checkpoint", "")
        if "/" in checkpoint and ":" not in checkpoint:
            files = ("config.json", WEIGHTS)
            yield Preset(f"model={path.stem}", "model", checkpoint, values.get("revision", ""), files)
    for path in sorted(CONF.glob("task/*.yaml")):
        source = yaml.safe_load(path.read_text(encoding="utf-8")).get("path")
        references = source.values() if isinstance(source, dict) else [str(source)]
        files = [parse("task.path", reference) for reference in references if reference.startswith(PREFIX)]
        if files:
            ((repository, revision),) = {file[:2] for file in files}  # all its files are read at one commit
            yield Preset(f"task={path.stem}", "dataset", repository, revision or "", tuple(file.name for file in files))


def test_every_preset_from_the_hub_is_pinned_to_a_commit():
    assert len(list(presets())) == 18
    assert [preset.name for preset in presets() if not re.fullmatch("[0-9a-f]{40}", preset.revision)] == []


@pytest.mark.hub
@pytest.mark.parametrize("preset", list(presets()), ids=lambda preset: preset.name)
def test_the_hub_has_the_files_of_every_preset(preset: Preset):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().repo_info(preset.repository, revision=preset.revision, repo_type=preset.kind)
    except HfHubHTTPError:
        raise  # the Hub answers that there is no such repository or commit
    except Exception as error:  # whichever HTTP library it is
        pytest.skip(f"the Hub does not answer ({type(error).__name__})")
    assert set(preset.files) <= {sibling.rfilename for sibling in info.siblings or []}


def test_a_preset_names_the_licence_of_its_own_source():
    licences = 0
    for path in [*CONF.glob("model/*.yaml"), *CONF.glob("task/*.yaml")]:
        text = path.read_text(encoding="utf-8")
        if found := re.search(r"^license: \S+ of (\S+)$", text, re.MULTILINE):
            assert re.search(rf"^(checkpoint|path|  train): {re.escape(found[1])}(@|$)", text, re.MULTILINE), path
            licences += 1
        assert "license:" not in text.replace(found[0] if found else "", "")
    assert licences == 14


def test_a_reference_to_a_file_of_the_hub_is_taken_apart():
    assert parse("task.path", "hub:a/b@main/data/x.csv") == HubFile("a/b", "main", "data/x.csv")
    assert parse("task.path", "hub:a/b/x.csv") == HubFile("a/b", None, "x.csv")
