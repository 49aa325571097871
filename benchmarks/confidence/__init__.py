"""How sure a ranking is: coverage of intervals, what they cost, and racing."""
