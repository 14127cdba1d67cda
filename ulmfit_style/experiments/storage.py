"""How a trial is reported before the reporter is handed in."""

from __future__ import annotations

import base64
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIAL = "ULMFIT_STYLE_TRIAL"


@contextmanager
def here(reporter: Any) -> Iterator[None]:
    """Hand the reporter to the processes that train."""
    if reporter is None:
        yield
        return
    os.environ[TRIAL] = base64.b64encode(pickle.dumps(reporter)).decode()
    try:
        yield
    finally:
        del os.environ[TRIAL]


def trial_in_training() -> Any:
    """Return the reporter of this process."""
    return pickle.loads(base64.b64decode(os.environ[TRIAL])) if TRIAL in os.environ else None
