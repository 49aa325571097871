"""What happens to a run when something goes wrong: faults on purpose, and hostile files."""
