"""The pytest plugin: options, fixture, workers, progress, the end of a session."""
