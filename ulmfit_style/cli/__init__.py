"""What is typed becomes a `Config`."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]

CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""The folder of YAMLs: inside an installed wheel, or beside the package in a checkout."""
