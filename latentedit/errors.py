"""The one exception type that users of the package have to know."""


class Error(ValueError):
    """A file, an argument or an option is not what was expected; the message is one line and says what was."""
