"""Studies: named arms, each over the same seeds and numbers of labels, and what the arms differ in."""
