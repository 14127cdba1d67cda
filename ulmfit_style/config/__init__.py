"""The schema: one frozen class a section of the configuration."""
