"""What is typed becomes a `Config`."""
