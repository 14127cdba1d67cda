"""What a command computes with: its processes and their devices."""
