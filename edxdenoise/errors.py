"""Everything edxdenoise raises or warns of on purpose.

Each error also is the built-in kind a caller would expect, so that ``except ValueError`` works for
those who do not know this package. The message is one line that says which file or key is meant,
the value received, what is allowed and how to mend it: the command line prints just that line.
"""


class EdxdenoiseError(Exception):
    """Root of all errors raised on purpose."""


class FormatError(EdxdenoiseError, OSError):
    """A file cannot be read as a spectrum image, or cannot be written."""


class SchemaError(EdxdenoiseError, ValueError):
    """A Dataset lacks a variable, or has it with other dims or another kind of number."""


class ParameterError(EdxdenoiseError, ValueError):
    """A parameter is outside what is allowed."""


class DataError(EdxdenoiseError, ValueError):
    """The counts are not what the method needs: negative, not finite, all zero, not whole."""


class RecipeError(EdxdenoiseError, ValueError):
    """A recipe has an unknown key, a wrong type or an impossible value."""


class MemoryLimitError(EdxdenoiseError, MemoryError):
    """The job cannot be done within the memory limit."""


class EdxdenoiseWarning(UserWarning):
    """Scientific doubt the user should see; the result is still given."""
