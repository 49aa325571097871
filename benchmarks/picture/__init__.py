"""README's picture, drawn from a result file."""
