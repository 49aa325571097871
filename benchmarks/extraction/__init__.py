"""Extraction beside the forward passes it is made of."""
