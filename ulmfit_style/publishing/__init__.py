"""What goes to the Hub of a finished model, what is written of it there, and how it gets there."""
