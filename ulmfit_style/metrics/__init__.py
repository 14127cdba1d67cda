"""The metrics, a module for each kind of answer, and their intervals.

The metrics are imported late, for `evaluate` takes seconds to load.
"""

from ulmfit_style.metrics.intervals import (
    Array,
    Points,
    difference,
    divided,
    first,
    interval,
    over_seeds,
    ratio,
    spread,
    verdict,
)

__all__ = ["Array", "Points", "difference", "divided", "first", "interval", "over_seeds", "ratio", "spread", "verdict"]
