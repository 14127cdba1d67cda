"""The stages of a chain, one file each, and the table of them."""
