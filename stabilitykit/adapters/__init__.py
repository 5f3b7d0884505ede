"""Tasks for other people's training code: Lightning, transformers, scikit-learn, skorch, commands."""
