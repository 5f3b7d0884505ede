"""The answer: budgets, limits, gates, and the power that they have."""
