import pytest

from preference_data.errors import StoreError
from preference_data.requests import Requests
from preference_data.store import Store


@pytest.fixture
def requests(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/p.db") as store:
        yield Requests(store.engine)


def test_from_filed_to_done(requests):
    filed = requests.file("k1", "round", {"plan": "abc"}, by="ann")
    assert (filed.number, filed.state, filed.by, filed.actor, filed.payload) == (
        1,
        "filed",
        "ann",
        "ann",
        {"plan": "abc"},
    )
    claimed = requests.claim("runner")
    assert (claimed.key, claimed.state, claimed.by, claimed.actor) == ("k1", "claimed", "ann", "runner")
    assert claimed.at == filed.at
    assert claimed.since >= filed.since
    done = requests.finish("k1", by="runner")
    assert (done.state, done.message) == ("done", "")
    assert requests.get("k1") == done
    assert requests.claim("runner") is None


def test_a_failure_says_why(requests):
    requests.file("k1", "freeze", {}, by="ann")
    requests.claim("runner")
    assert requests.finish("k1", by="runner", error="no pairs")[6:9] == ("failed", "runner", "no pairs")


def test_filing_twice_files_once(requests):
    first = requests.file("k1", "import", {"file": "a"}, by="ann")
    requests.claim("runner")
    again = requests.file("k1", "import", {"file": "a"}, by="bob")
    assert (again.number, again.state, again.by) == (first.number, "claimed", "ann")
    assert len(requests.all()) == 1
    with pytest.raises(StoreError, match="'k1': stands for another import request"):
        requests.file("k1", "import", {"file": "b"}, by="ann")


def test_oldest_first_and_each_once(requests):
    for key in "cab":
        requests.file(key, "explain", {}, by="ann")
    assert [requests.claim(f"runner {n}").key for n in range(3)] == ["c", "a", "b"]
    assert requests.claim("runner") is None
    assert [each.key for each in requests.all()] == ["c", "a", "b"]


def test_what_a_dead_runner_left_is_claimed_again(requests):
    requests.file("k1", "round", {}, by="ann")
    requests.file("k2", "round", {}, by="ann")
    requests.claim("dead")
    requests.finish("k1", by="dead")
    requests.claim("dead")
    assert [each.key for each in requests.refile(by="new", message="runner gone")] == ["k2"]
    assert requests.claim("new").key == "k2"
    with pytest.raises(StoreError, match="'k2': claimed by 'new'; expected it claimed by 'dead'"):
        requests.finish("k2", by="dead")
    assert requests.finish("k2", by="new").state == "done"


@pytest.mark.parametrize("state", ["filed", "done"])
def test_only_what_is_claimed_can_be_finished(requests, state):
    requests.file("k1", "round", {}, by="runner")
    if state == "done":
        requests.claim("runner")
        requests.finish("k1", by="runner")
    with pytest.raises(StoreError, match=f"'k1': {state} by 'runner'; expected it claimed by 'runner'"):
        requests.finish("k1", by="runner")


def test_unknown_kinds_and_keys_are_refused(requests):
    with pytest.raises(StoreError, match="'dance': expected one of import, freeze, round"):
        requests.file("k1", "dance", {}, by="ann")
    with pytest.raises(StoreError, match="'k1': not in the store"):
        requests.get("k1")
