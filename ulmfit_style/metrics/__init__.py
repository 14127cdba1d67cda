"""How answers are scored: a module for each kind of them, and the intervals of scores."""
