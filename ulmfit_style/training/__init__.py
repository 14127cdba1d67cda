"""How models learn, and how they answer."""
