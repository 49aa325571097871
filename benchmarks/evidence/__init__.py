"""Does a ranking pick the model that fine-tunes best? A bank in which transfer decides."""
