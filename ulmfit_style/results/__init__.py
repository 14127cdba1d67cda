"""What is told of results."""
