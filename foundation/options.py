"""What is wrong with the options of a command."""


class OptionError(ValueError):
    """Options that do not go together, or not with these files."""
