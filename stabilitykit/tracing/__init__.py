"""What a training reads: files, folders, variables and modules, which the key of its runs must know."""
