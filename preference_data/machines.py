"""Which annotators are no people: their handles say so, and no account may be called like one."""

PREFIXES = ("rule:", "simulated:", "reward:", "ai:")


def is_machine(handle: str) -> bool:
    """Whether a handle is a machine's.

    >>> is_machine("ai:judge"), is_machine("ann"), is_machine("helpsteer3:1")
    (True, False, False)
    """
    return handle.startswith(PREFIXES)
