"""The answer: budgets, limits, gates, and their power."""
