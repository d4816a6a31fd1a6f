"""The one exception type that users of the package have to know."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


class Error(ValueError):
    """A file, an argument or an option is not what was expected; the message is one line and says what was."""


@contextmanager
def complete(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn what goes wrong while ``what`` is put together from the contents of a file into an `Error` that names both."""
    try:
        yield
    except Error as error:
        if str(path) in str(error):
            raise
        raise Error(f"{path}: {error}") from error
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        text = str(error).splitlines()[0][:160] if str(error) else ""
        raise Error(f"{path}: the {what} is incomplete ({type(error).__name__}: {text})") from error
