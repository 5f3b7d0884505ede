"""One run: a task under one plan, every source on its own stream."""
