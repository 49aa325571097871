"""A bank of models that six ways of saving left, ranked by one command."""
