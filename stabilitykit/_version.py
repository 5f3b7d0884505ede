"""The version, in the one place that both the packaging and the environment read."""

__version__ = "0.1.0"
