"""The one exception that stands for a mistake of the user."""


class UserError(Exception):
    """A mistake the user can mend. Its message is one sentence that says what is wrong and what to do; the command
    lines print it without a traceback and exit with code 2."""
