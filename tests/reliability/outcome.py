"""What may come of an input."""


class WrongError(Exception):
    """Something came out that may not."""


def require(condition, what):
    if not condition:
        raise WrongError(what)
