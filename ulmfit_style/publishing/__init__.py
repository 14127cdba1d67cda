"""What goes to the Hub of a finished model, what is written of it there, and how it gets there."""

from pathlib import Path

import yaml

HUB = yaml.safe_load(Path(__file__).with_name("hub.yaml").read_text(encoding="utf-8"))
"""What is uploaded to the Hub, what is said where it refuses that, and what it calls things."""
