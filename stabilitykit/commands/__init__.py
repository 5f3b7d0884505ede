"""Commands that train: `stabilitykit measure` and `stabilitykit compare`."""
