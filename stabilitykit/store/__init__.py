"""What is kept: run files, claims on runs, and the key of a run."""
