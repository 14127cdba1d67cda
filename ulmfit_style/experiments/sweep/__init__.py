"""Sweeps: a grid over shared artefacts, or a search by Optuna that prunes, goes on, and spreads over machines."""
