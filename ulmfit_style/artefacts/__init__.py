"""Directories of results: how they are made, found and listed."""
