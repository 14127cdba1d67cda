"""The page on a finished run: what its artefacts tell, for people."""
