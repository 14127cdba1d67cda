"""The HTTP service of a model, and its page."""
