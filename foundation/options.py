"""The error for wrong options of a command."""


class OptionError(ValueError):
    """Options contradict each other, or do not fit the given files."""
