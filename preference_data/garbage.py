"""Work that makes and drops many objects, with Python's collector kept from what was there before."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def only_new_garbage() -> Generator[None]:
    """Collections look at what was made inside; also a decorator.

    A process that has loaded its libraries holds some hundred thousand objects that are no garbage. Going through them
    again and again took a third of the time of an import and a freeze.
    """
    if gc.get_freeze_count():  # somebody did so for longer
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
