"""Collections kept from what was there before."""

import gc

import pytest

from preference_data.garbage import only_new_garbage


class Ring:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def thawed():
    """Nothing is frozen, whatever the suite froze; put back afterwards."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    gc.unfreeze()
    if frozen:
        gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_what_was_there_is_not_looked_at_and_what_is_new_is_collected():
    with only_new_garbage():
        assert gc.get_freeze_count() > 1000  # at least what Python itself has loaded
        assert not any(isinstance(each, Ring) for each in gc.get_objects())
        Ring()
        gc.collect()
        assert not any(isinstance(each, Ring) for each in gc.get_objects())
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("thawed")
def test_it_ends_with_an_error_too_and_leaves_what_others_froze():
    with pytest.raises(KeyError), only_new_garbage():
        raise KeyError
    assert gc.get_freeze_count() == 0
    gc.freeze()
    with only_new_garbage():
        pass
    assert gc.get_freeze_count() > 1000
