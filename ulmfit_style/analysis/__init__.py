"""What is known of a model beyond its scores: how it treats groups, whose name it heeds, what its answers rest on."""
