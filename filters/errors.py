"""The exceptions that command lines print without a traceback."""


class UserError(Exception):
    """A mistake that the user can correct.

    Its message is one sentence that says what is wrong and what to do. The command lines print it without a traceback
    and exit with code 2.
    """


class RunError(Exception):
    """A failure that no other argument would mend: of storage, a worker process, or a check of the result.

    Its message is one sentence. The command lines print it without a traceback and exit with code 1.
    """
