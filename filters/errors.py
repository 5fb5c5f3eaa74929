"""The exceptions that the command lines print without a traceback."""


class UserError(Exception):
    """A mistake that the user can correct.

    Its message is one sentence that says what is wrong and what to do. The command lines print it without a traceback
    and exit with code 2.
    """


class RunError(Exception):
    """A failure that does not come from the arguments, for example of storage, a worker process, or a result check.

    Its message is one sentence. The command lines print it without a traceback and exit with code 1.
    """
