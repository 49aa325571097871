"""Scripts behind every number in README and docs; see README.md here."""
