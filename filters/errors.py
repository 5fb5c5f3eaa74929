"""The exception for mistakes that the user can correct."""


class UserError(Exception):
    """A mistake that the user can correct.

    Its message is one sentence that says what is wrong and what to do. The command lines print it without a traceback
    and exit with code 2.
    """
