"""What holds a round to earlier ones: replay, schedules, losses, penalties and updates, against values by hand."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preference_data.records import Pair, Prompt
from workbench.config import METHODS, ReplaySettings, RoundSettings, ScheduleSettings
from workbench.errors import ConfigError
from workbench.maths import LOSSES, PairLogps, between, essential, short_to_long
from workbench.models.score_table import PairScore
from workbench.models.tokens import Encoded
from workbench.rounds.replay import mixed, without_contradictions
from workbench.rounds.schedules import Judged, by_age, by_drift, by_slice, fixed
from workbench.tasks import AGE, EPOCHS, PolicyRef
from workbench.training.batches import TrainRow, in_order

LENGTHS = PairLogps(torch.tensor([2.0]), torch.tensor([4.0]))


def pair(text, chosen="yes", rejected="no", *, weight=1.0, **slices):
    return Pair(Prompt.of(text), chosen, rejected, weight, None, (), slices, "train")


def row(key, epochs):
    side = Encoded((1,), (2,))
    return TrainRow(
        key, side, side, 1.0, PairScore(0.0, 0.0, 1, 1), (0.0, 0.0), (1.0,), old=bool(epochs), epochs=epochs
    )


def texts(pairs):
    return [p.prompt.text for p in pairs]


def test_replay_takes_the_share_from_all_rounds_alike():
    new = [pair(f"new {i}") for i in range(10)]
    earlier = {1: [pair(f"one {i}") for i in range(9)], 2: [pair(f"two {i}") for i in range(9)]}
    found = mixed(new, earlier, ReplaySettings(share=0.4), {})
    # 0.4 x 10 = 4: two of each round
    assert [p.slices[AGE] for p in found] == ["0"] * 10 + ["1"] * 2 + ["2"] * 2
    assert found == mixed(new, earlier, ReplaySettings(share=0.4), {})
    other = mixed(new, earlier, ReplaySettings(share=0.4, seed=1), {})
    assert texts(other) != texts(found)


def test_a_share_of_each_round_grows_with_the_lineage():
    earlier = {1: [pair(f"one {i}") for i in range(10)], 2: [pair(f"two {i}") for i in range(20)]}
    found = mixed([pair("n")], earlier, ReplaySettings(share=0.2, of="each"), {})
    assert [p.slices[AGE] for p in found] == ["0"] + ["1"] * 2 + ["2"] * 4


def test_every_epoch_draws_on_where_the_last_one_ended():
    new, settings = [pair("n")], ReplaySettings(share=0.4, of="each", draw="epoch")
    found = mixed(new, {1: [pair(f"a{i}") for i in range(5)]}, settings, {}, epochs=3)
    once = [p.key for p in mixed(new, {1: [pair(f"a{i}") for i in range(5)]}, ReplaySettings(share=1.0, of="each"), {})]
    assert [p.key for p in found] == once  # the same order, and in it two of five for each of three epochs
    assert [p.slices.get(EPOCHS) for p in found] == [None, "1 3", "1", "2", "2", "3"]
    rows = [row(p.key, epochs=tuple(map(int, p.slices.get(EPOCHS, "").split()))) for p in found]
    keys = [each.key for each in in_order(rows, epochs=3, seed=0)]
    per_epoch = [set(keys[:3]), set(keys[3:6]), set(keys[6:])]
    assert per_epoch == [{once[0], once[1], once[2]}, {once[0], once[3], once[4]}, {once[0], once[5], once[1]}]
    assert found == mixed(new, {1: [pair(f"a{i}") for i in range(5)]}, settings, {}, epochs=3)
    same = mixed(new, {1: [pair("a")]}, settings.model_copy(update={"draw": "round"}), {}, epochs=3)
    assert not any(EPOCHS in p.slices for p in same)


def test_what_one_round_lacks_the_others_give_and_no_more_than_there_is():
    new = [pair(f"new {i}") for i in range(10)]
    earlier = {1: [pair("one")], 2: [pair(f"two {i}") for i in range(9)]}
    assert [p.slices[AGE] for p in mixed(new, earlier, ReplaySettings(share=0.6), {})][10:] == ["1"] + ["2"] * 5
    assert len(mixed(new, earlier, ReplaySettings(share=9.0), {})) == 20
    assert len(mixed(new, earlier, ReplaySettings(share="all"), {})) == 20
    assert mixed(new, earlier, ReplaySettings(), {}) == mixed(new, {}, ReplaySettings(share=1.0), {})


def test_the_newest_word_on_two_answers_wins():
    new, middle = pair("a"), pair("b", "no", "yes")
    earlier = {1: [middle, pair("a", "no", "yes")], 2: [pair("b"), pair("a"), pair("c")]}
    left = without_contradictions([new], earlier)
    assert left == {1: [middle], 2: [pair("c")]}


def test_weights_fall_with_age():
    found = mixed(
        [pair("n")], {1: [pair("o", weight=2.0)], 3: [pair("p")]}, ReplaySettings(share="all", age_weight=0.5), {}
    )
    assert [p.weight for p in found] == [1.0, 1.0, 0.125]  # 1, 2 x 0.5, 0.5^3


def test_replayed_pairs_weigh_what_is_asked_or_as_much_as_the_new_round():
    new, earlier = [pair(f"n {i}") for i in range(6)], {1: [pair(f"o {i}") for i in range(2)], 2: [pair("p")]}
    heavy = mixed(new, earlier, ReplaySettings(share="all", weight=4.0), {})
    assert [p.weight for p in heavy[6:]] == [4.0] * 3
    balanced = mixed(new, earlier, ReplaySettings(share="all", weight="balanced"), {})
    assert [p.weight for p in balanced] == [1.0] * 6 + [3.0] * 2 + [6.0]


def test_coverage_takes_every_value_of_a_slice_in_turn():
    old = [pair(f"a {i}", domain="a") for i in range(20)] + [pair("b", domain="b"), pair("c", domain="c")]
    found = mixed([pair(f"n {i}") for i in range(3)], {1: old}, ReplaySettings(share=1.0, choice="coverage"), {})
    assert sorted(p.slices["domain"] for p in found[3:]) == ["a", "b", "c"]


def test_margin_takes_every_quartile_in_turn():
    old = [pair(f"o {i}") for i in range(8)]
    margins = {p.key: float(i) for i, p in enumerate(old)}
    found = mixed([pair(f"n {i}") for i in range(4)], {1: old}, ReplaySettings(share=1.0, choice="margin"), margins)
    assert sorted(int(margins[p.key]) // 2 for p in found[4:]) == [0, 1, 2, 3]


def policies(count):
    return [PolicyRef(str(i), "adapter", "", "b", "", "t") for i in range(count)]


def weights(anchors):
    return [a.weight for a in anchors]


def test_fixed_schedules():
    assert weights(fixed(policies(4), ScheduleSettings(kind="uniform"))) == [0.25] * 4
    # 1/4, 1/2, 1 over their sum 7/4
    assert weights(fixed(policies(3), ScheduleSettings(kind="age", strength=0.5))) == pytest.approx(
        [1 / 7, 2 / 7, 4 / 7]
    )
    assert weights(fixed(policies(3), ScheduleSettings(kind="drift"))) == [0, 0, 1]


def test_new_pairs_are_held_by_the_base_and_replayed_ones_by_the_parent():
    apart = ScheduleSettings(kind="apart")
    anchors = fixed(policies(4), apart)
    assert [a.policy for a in anchors] == [policies(4)[0], policies(4)[3]]  # those between hold nothing
    assert weights(anchors) == [1, 0]
    assert by_age(anchors, {1: 3, 2: 2}, apart).weights == {"1": (0, 1), "2": (0, 1)}
    assert weights(fixed(policies(1), apart)) == [1]


def test_drift_gives_weight_to_what_has_fallen():
    anchors = fixed(policies(3), ScheduleSettings(kind="drift"))
    a, b = pair("a"), pair("b")
    # after round 1 both pairs of its version were right, under the parent (round 2) one is
    one = Judged([a, b], [{}, {a.key: 1.0, b.key: 2.0}, {a.key: 1.0, b.key: -1.0}])
    assert weights(by_drift(anchors, {1: one}, ScheduleSettings(kind="drift", strength=0.4))) == [0, 0.4, 0.6]
    kept = Judged([a, b], [{}, {a.key: 1.0, b.key: -2.0}, {a.key: 1.0, b.key: 1.0}])
    assert weights(by_drift(anchors, {1: kept}, ScheduleSettings(kind="drift"))) == [0, 0, 1]


def test_a_slice_is_held_by_the_policy_best_on_it():
    anchors = fixed(policies(3), ScheduleSettings(kind="slice", slice="domain"))
    a, b = pair("a", domain="x"), pair("b", domain="y")
    judged = {1: Judged([a, b], [{a.key: -1.0, b.key: 1.0}, {a.key: 1.0, b.key: 1.0}, {a.key: -1.0, b.key: 1.0}])}
    found = by_slice(anchors, judged, ScheduleSettings(kind="slice", slice="domain"))
    assert found.weights == {"x": (0, 1, 0), "y": (0, 0, 1)}  # all are right on y: the newest


def test_replayed_pairs_are_held_by_where_they_came_from():
    anchors = fixed(policies(3), ScheduleSettings(kind="origin"))
    assert by_age(anchors, {1: 2, 2: 1}, ScheduleSettings(kind="origin")).weights == {"1": (0, 1, 0), "2": (1, 0, 0)}
    assert by_age(anchors, {1: 2, 2: 1}, ScheduleSettings(kind="learner")).weights == {"1": (0, 0, 1), "2": (0, 1, 0)}


def loss(name, policy, reference=(0.0, 0.0), beta=0.5):
    mine, theirs = (PairLogps(*(torch.tensor([x]) for x in both)) for both in (policy, reference))
    return LOSSES[name](mine, theirs, beta=beta, label_smoothing=0.0, lengths=LENGTHS).item()


def test_fpo_by_hand():
    # h = 0.5 x 2 = 1: sigma(-1) = 0.268941, -ln sigma(1) = 0.313262: 0.268941^2 x 0.313262 = 0.022658
    assert loss("fpo", (-1.0, -3.0)) == pytest.approx(0.022658, abs=1e-6)
    assert loss("fpo", (0.0, 0.0)) == pytest.approx(math.log(2) / 4)


def test_copr_is_zero_at_its_optimum_and_by_hand():
    # D* = 0 + 2 / (3 x 0.5) = 4/3
    assert loss("copr", (4 / 3, 0.0)) == pytest.approx(0, abs=1e-9)
    # at D = 0: ln sigma(4/3) = -0.233963, ln sigma(-4/3) = -1.567296, ln 1/2 = -0.693147: (0.459184^2 + 0.874149^2) / 2
    assert loss("copr", (0.0, 0.0)) == pytest.approx(0.487493, abs=1e-5)


def test_copr_is_the_squared_distance_from_the_optimum_over_the_two_answers():
    policy, reference, beta = (-1.0, -2.5), (-2.0, -1.5), 0.7
    rewards = (1 / 3, -1 / 3)
    raw = [math.exp(r + a / beta) for r, a in zip(reference, rewards, strict=True)]
    best = [math.log(x / sum(raw)) for x in raw]
    mine = [x - math.log(sum(map(math.exp, policy))) for x in policy]
    expected = sum((m - b) ** 2 for m, b in zip(mine, best, strict=True)) / 2
    assert loss("copr", policy, reference, beta) == pytest.approx(expected, rel=1e-5)


def test_cppo_weighs_by_the_type_of_a_pair():
    # rewards 2, 0, -2, -2, 2 and probabilities per token -0.5, -1, -1.5, -0.5, -1.5: means 0 and -1, spreads 1.8 and 0.45
    reference = PairLogps(torch.tensor([-1.0, -2.0, -3.0, -1.0, -3.0]), torch.tensor([-1.0, -2.0, -3.0, -1.0, -3.0]))
    policy = PairLogps(reference.chosen, torch.tensor([-5.0, -2.0, 1.0, 3.0, -7.0]))
    lengths = PairLogps(torch.tensor([2.0] * 5), torch.tensor([4.0] * 5))
    found = LOSSES["cppo"](policy, reference, beta=0.5, label_smoothing=0.0, lengths=lengths)
    # retention: chosen does not move; rejected by (4/4)^2 where it moves, times 0.1
    well, badly = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    expected = [
        1.5 * well + 1.5 * 0.1,  # likely and rewarded
        math.log(2),  # neither high nor low
        0.5 * badly + 0.5 * 0.1,  # unlikely and not rewarded
        1.5 * badly + 0.5 * 0.1,  # likely, not rewarded
        1.5 * well + 0.5 * 0.1,  # unlikely, rewarded
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_kto_holds_each_answer_against_the_mean_of_its_batch():
    # log-ratios 2, 0 of what is good and -1, 3 of what is bad: z = (2 + 0 - 1 + 3) / 4 = 1.
    policy = PairLogps(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 3.0]))
    zero = PairLogps(torch.zeros(2), torch.zeros(2))
    found = LOSSES["kto_pair"](policy, zero, beta=0.5, label_smoothing=0.0, lengths=LENGTHS)
    sigma = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = [2 - sigma(0.5 * 1) - sigma(0.5 * 2), 2 - sigma(0.5 * -1) - sigma(0.5 * -2)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    # Below zero the reference point is zero: -3 and -1 have a mean of -2.
    low = PairLogps(torch.tensor([-3.0]), torch.tensor([-1.0]))
    found = LOSSES["kto_pair"](
        low, PairLogps(torch.zeros(1), torch.zeros(1)), beta=0.5, label_smoothing=0.0, lengths=LENGTHS
    )
    assert found.item() == pytest.approx(2 - sigma(-1.5) - sigma(0.5), rel=1e-6)


def test_cppo_finds_no_types_in_rounding():
    # a round's first step: rewards are 0 up to 1e-3, so every pair is normal and its loss ln 2
    policy = PairLogps(torch.tensor([-2.0, -2.001, -1.999]), torch.tensor([-3.0, -3.0, -3.0]))
    reference = PairLogps(torch.tensor([-2.0] * 3), torch.tensor([-3.0] * 3))
    lengths = PairLogps(torch.tensor([2.0] * 3), torch.tensor([4.0] * 3))
    found = LOSSES["cppo"](policy, reference, beta=0.5, label_smoothing=0.0, lengths=lengths)
    assert found.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-3)


def test_an_average_and_its_ends():
    start, end = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    assert between(start, end, 0.25).tolist() == [2.5, -1.0]
    assert between(start, end, 0.0).tolist() == end.tolist()


def test_the_essential_part_keeps_the_fewest_components():
    # squared singular values 9, 1: the first has 0.9 of them
    update = torch.diag(torch.tensor([3.0, 1.0]))
    assert torch.allclose(essential(update, 0.9), torch.diag(torch.tensor([3.0, 0.0])), atol=1e-6)
    assert torch.allclose(essential(update, 0.91), update, atol=1e-6)
    assert essential(torch.zeros(2, 2), 0.9).tolist() == [[0, 0], [0, 0]]


def test_an_update_loses_what_points_along_earlier_ones():
    update, earlier = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
    assert short_to_long(update, [earlier], overlap=0.0, energy=1.0).tolist() == [[0.0, 4.0]]
    assert short_to_long(update, [earlier], overlap=0.5, energy=1.0).tolist() == [[1.5, 4.0]]
    assert short_to_long(update, [earlier, earlier], overlap=0.0, energy=1.0).tolist() == [[0.0, 4.0]]
    assert torch.allclose(short_to_long(update, [], overlap=0.0, energy=1.0), update)


@given(st.lists(st.floats(-2, 2), min_size=12, max_size=12), st.floats(0, 1))
def test_what_is_left_of_an_update_is_between_none_and_all_of_its_overlap(numbers, overlap):
    a, b = torch.tensor(numbers, dtype=torch.float64).reshape(2, 2, 3)
    found = short_to_long(a, [b], overlap=overlap, energy=1.0)
    along = lambda m: float((m * b).sum())  # noqa: E731
    assert along(found) == pytest.approx(overlap * along(a), abs=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_valid_round(name):
    found = RoundSettings.model_validate({"method": name})
    assert RoundSettings.model_validate(found.model_dump()) == found
    assert METHODS[name].summary
    assert METHODS[name].source


def test_what_is_said_beside_a_method_wins():
    found = RoundSettings.model_validate({"method": "lifealign", "replay": {"share": 0.5}})
    assert (found.replay.share, found.after.overlap, found.objective.loss) == (0.5, 0.5, "fpo")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "magic"}, "known methods: recommended, "),
        ({"replay": {"share": -1}}, "expected 0 or more"),
        ({"replay": {"weight": 0}}, "expected more than 0"),
        ({"method": "plain", "penalties": {"kl_old": 1.0}}, "replay.share is 0"),
        ({"penalties": {"kl_budget": 0.1}}, "kl_new and kl_old are 0"),
        ({"penalties": {"kl_base_budget": 0.1}}, "kl_base is 0"),
        ({"moving": {"share": 0.5}, "objective": {"loss": "cppo"}}, "only approximately one reference"),
        ({"schedule": {"kind": "age"}, "anchors": [{"policy": "base", "weight": 1}]}, "leave one of the two out"),
        ({"schedule": {"kind": "uniform"}, "objective": {"loss": "ipo"}}, "only approximately one reference"),
        ({"start": "base", "penalties": {"ewc": 1.0}}, "use start = 'parent'"),
        ({"start": "base"}, "such as method = 'retrain'"),
        ({"replay": {"share": 0}}, "such as method = 'plain'"),
        ({"after": {"keep": [1.0]}}, "from 0 to below 1"),
        ({"after": {"blocks": 3}}, "no effect without keep"),
        ({"after": {"overlap": 0.5}, "training": {"method": "full"}}, "overlap takes updates of adapters"),
        ({"method": "on-dare", "start": "base"}, "merging.kind = 'dare' holds the child to the policy it starts from"),
        ({"method": "o-lora", "training": {"method": "full"}}, "penalties.orthogonal compares updates of adapters"),
        ({"method": "o-lora", "start": "base"}, "penalties.orthogonal holds the child to the policy it starts from"),
        ({"method": "o-lora", "online": {"objective": "distil"}}, "penalties.orthogonal concerns pairs"),
        ({"after": {"merge": "ties"}}, "merge = 'ties' has no effect without keep; give shares to try"),
        ({"method": "dare-ties", "training": {"method": "full"}}, "merge = 'dare_ties' takes updates of adapters"),
        ({"method": "ewc", "online": {"objective": "distil"}}, "penalties.ewc concerns pairs"),
        ({"method": "ema", "online": {"objective": "distil"}}, "moving.share concerns pairs"),
        ({"method": "fresh", "online": {"objective": "distil"}}, "replay.answers = 'fresh' concerns pairs"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, says):
    from workbench.config import settings_from

    with pytest.raises(ConfigError, match=says):
        settings_from(values, RoundSettings, where="test")


@pytest.mark.parametrize("method", ["recommended", "slice", "learner"])
def test_where_every_pair_has_one_anchor_any_loss_is_exact(method):
    settings = RoundSettings.model_validate({"method": method, "objective": {"loss": "ipo"}})
    assert settings.schedule.kind in {"apart", "slice", "learner"}


def test_what_is_said_of_the_reference_replaces_the_methods_reference():
    by_rule = RoundSettings.model_validate({"schedule": {"kind": "age"}})
    assert (by_rule.method, by_rule.anchors) == (
        "recommended",
        RoundSettings.model_validate({"method": "plain"}).anchors,
    )
    given = [{"policy": "parent", "weight": 1.0}]
    listed = RoundSettings.model_validate({"method": "age", "anchors": given})
    assert (listed.schedule.kind, listed.anchors[0].policy) == ("given", "parent")
    assert RoundSettings.model_validate({"schedule": {}}) == RoundSettings()
    assert by_rule.replay == RoundSettings().replay  # the rest is the method's


def test_the_documentation_lists_every_method_with_its_source():
    text = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` | {method.summary} | {method.source} |" in text for name, method in METHODS.items())
