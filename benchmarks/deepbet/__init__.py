"""Two trained networks that somebody else published, and untrained ones."""
