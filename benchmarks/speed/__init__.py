"""Estimators against the forms they were published in, side by side."""
