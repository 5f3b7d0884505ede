"""The numbers: from the outputs of R models to estimates with bounds."""
