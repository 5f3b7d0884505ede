"""R runs: which process trains which, where, and until when."""
