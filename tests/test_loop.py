"""The closed loop on a tiny model: what a turn does, killed and run again, with people, and how it ends."""

import json
import random
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from preference_data.freeze import FreezeRule
from preference_data.queue import Queue
from preference_data.simulate import GUIDELINES, Guideline
from preference_data.store import Entry
from tests.rounds_kit import WORDS, entries
from tests.tiny_model import build_tiny_model
from workbench import looping
from workbench.cli import app
from workbench.config import LoopSettings, NumericsSettings, ProxySettings
from workbench.drift.uncertainty import proportion
from workbench.errors import ConfigError, JournalError, RewardError
from workbench.judging import PEOPLE, by_rule, of_source, who_judges
from workbench.looping import Stage, run_loop
from workbench.reward_list import RewardModels
from workbench.reward_models import loaded
from workbench.rewards import Said
from workbench.routing import route
from workbench.workspace import Workspace

ROUND = {
    "method": "plain",
    "training": {"max_length": 128, "learning_rate": 5e-3, "rank": 4, "alpha": 8},
    "evaluation": {"samples": 6, "max_new_tokens": 6, "suites": ["refusal"]},
    "gate": {"min_gain": -1, "max_retention_drop": 1, "max_tax": 1, "max_kl_parent": 50, "max_kl_base": 50},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A guideline that tells a tiny model's answers apart: letters."""
    monkeypatch.setitem(GUIDELINES, "short", Guideline("short", 1, "The shorter one.", lambda _, a: -len(a), margin=1))


@pytest.fixture
def ws(tmp_path, model):
    return Workspace.init(tmp_path / "ws", base=model)


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    rng = random.Random(0)
    lines = (" ".join(rng.sample(WORDS, 5)) + "\n" for _ in range(400))
    file.write_text("".join(lines), encoding="utf-8")
    return file


def loop(prompts, **changes):
    values = {
        "name": "weekly", "prompts": prompts, "prompts_per_turn": 120, "judges": "rule:short",
        "generate": {"max_new_tokens": 12}, "round": ROUND,
    }  # fmt: skip
    return LoopSettings.model_validate(values | changes)


def test_two_turns_learn_from_their_own_answers(ws, prompts):
    said = []
    ended = run_loop(ws, loop(prompts, turns=2), Stage(say=said.append))
    first, second = ended.turns
    assert ended.why == "all 2 turns are done"
    assert [first.version, second.version] == ["weekly-1", "weekly-2"]
    # The second turn's answers and round start from the first one's child.
    assert second.policy == first.child != first.policy
    assert ws.registry.resolve("champion").digest == second.child
    assert ws.registry.get(second.child).parent == first.child
    origins = {c.origin.policy for e in ws.store.entries() for c in e.comparison.completions}
    assert origins == {first.policy, second.policy}
    assert all(turn.state == "promoted" and 0 <= turn.agreed <= 1 for turn in ended.turns)
    assert any("short" in line for line in said)


def test_a_loop_trains_a_reward_model_each_turn_and_puts_new_judgements_to_the_one_before(ws, prompts):
    online = {
        "objective": "grpo",
        "rewards": [{"by": "model:latest"}],
        "steps": 2,
        "prompts": 4,
        "samples": 2,
        "max_new_tokens": 4,
    }
    reward_model = {"training": {"learning_rate": 1e-2, "rank": 4, "alpha": 8, "max_length": 128}}
    settings = loop(prompts, turns=2, reward_model=reward_model, round=ROUND | {"online": online})
    first, second = run_loop(ws, settings, Stage(where="here")).turns
    assert first.rewarded is None
    models = RewardModels(ws)
    assert [e.name for e in models.entries()] == ["weekly-1", "weekly-2"]
    # Counted by hand: what the first turn's model says of the pairs of the second turn's judgements.
    reward = loaded(ws, NumericsSettings())("weekly-1")
    right = []
    for entry in of_source(ws.store, "generated:weekly-turn-2"):
        shorter, longer = sorted((c.text for c in entry.comparison.completions), key=len)
        if len(shorter) < len(longer):
            a, b = reward([Said(entry.comparison.prompt, text, {}, finished=True) for text in (shorter, longer)])
            right.append(a > b)
    assert second.rewarded == pytest.approx(sum(right) / len(right), abs=0.02)
    # A round names the model by what it is, whatever is trained later.
    plans = [json.loads(r.plan) for r in ws.journal.rounds()]
    used = [plan["online"]["rewards"][0]["by"] for plan in plans]
    assert used == [f"model:{models.find(name).digest}" for name in ("weekly-1", "weekly-2")]


def test_a_proxy_spares_judgements_and_its_own_are_not_foreseen(ws, prompts):
    proxy = {"by": "rule:short", "confidence": 0.85, "control": 0.3, "agreeing": False}
    said = []
    settings = loop(prompts, judges="simulated:short", proxy=proxy)
    (turn,) = run_loop(ws, settings, Stage(say=said.append)).turns
    entries = list(of_source(ws.store, "generated:weekly-turn-1"))
    by = [e.judgements[-1].annotator for e in entries]
    assert set(by) == {"reward:rule:short", "simulated:short"}
    assert turn.spared == pytest.approx(by.count("reward:rule:short") / len(by))
    # Policy and judgements are compared on the random share alone.
    control = route([e.comparison for e in entries], [0.0] * len(entries), {}, ProxySettings(control=0.3)).control
    assert 0 < sum(e.comparison.key in control for e in entries) < len(entries)
    assert not any(e.judgements[-1].annotator.startswith("reward") for e in entries if e.comparison.key in control)
    # The rule errs nowhere, so the proxy is right on the control, sure or not.
    assert turn.proxy_right == turn.chance_right == 1.0
    assert all(len(e.judgements) == 1 for e in entries)
    # sigma of one letter is 0.73, of two 0.88.
    for e in entries:
        first, second = (len(c.text) for c in e.comparison.completions)
        if e.judgements[-1].annotator.startswith("reward"):
            assert abs(first - second) >= 2
    assert any("spared" in line for line in said)
    # Run again, nothing is labelled twice.
    assert run_loop(ws, settings, Stage()).turns == (turn,)


def test_before_there_is_a_reward_model_everybody_is_asked(ws, prompts):
    reward_model = {"training": {"learning_rate": 1e-2, "rank": 4, "alpha": 8, "max_length": 128}}
    settings = loop(prompts, turns=2, proxy={"confidence": 0.6, "agreeing": False}, reward_model=reward_model)
    first, second = run_loop(ws, settings, Stage(where="here")).turns
    assert first.spared is None
    assert 0 < second.spared < 1
    labels = {e.judgements[-1].annotator for e in of_source(ws.store, "generated:weekly-turn-2")}
    # By the model of the turn before, under a name that stays its own.
    assert labels == {"rule:short", f"reward:model:{RewardModels(ws).find('weekly-1').digest}"}


class KilledError(Exception):
    """Stands for a process that is gone."""


class Killer:
    """Makes the workspace's verbs die before or after the so manyth call."""

    def __init__(self, monkeypatch):
        self.left = 0
        for name in ("generate", "freeze", "round"):
            monkeypatch.setattr(Workspace, name, self.dying(getattr(Workspace, name)))

    def dying(self, verb):
        def wrapped(*args, **kwargs):
            self.tick()
            made = verb(*args, **kwargs)
            self.tick()
            return made

        return wrapped

    def tick(self):
        self.left -= 1
        if self.left == 0:
            raise KilledError


def test_a_loop_killed_anywhere_ends_with_the_same_policies(ws, prompts, tmp_path, model, monkeypatch):
    whole = run_loop(ws, loop(prompts, turns=2), Stage())
    other, killer = Workspace.init(tmp_path / "other", base=model), Killer(monkeypatch)
    for die_at in (1, 2, 3, 2, 3, 2):  # before and after answering, freezing, the round, in both turns
        killer.left = die_at
        with pytest.raises(KilledError):
            run_loop(other, loop(prompts, turns=2), Stage())
    killer.left = 0
    ended = run_loop(other, loop(prompts, turns=2), Stage())
    assert [t.child for t in ended.turns] == [t.child for t in whole.turns]


def test_a_line_cut_short_is_dropped(ws, prompts):
    run_loop(ws, loop(prompts, turns=1), Stage())
    file = ws.root / "loops" / "weekly" / "book.jsonl"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole + '{"begun": 2, "pol', encoding="utf-8")
    assert len(run_loop(ws, loop(prompts, turns=1), Stage()).turns) == 1
    assert len(run_loop(ws, loop(prompts, turns=2), Stage()).turns) == 2
    assert file.read_text(encoding="utf-8").startswith(whole + '{"begun": 2, "policy"')


def test_other_prompts_under_the_same_name_are_refused_and_other_settings_are_not(ws, prompts):
    run_loop(ws, loop(prompts, turns=1), Stage())
    steeper = ROUND | {"training": ROUND["training"] | {"epochs": 2}}
    assert len(run_loop(ws, loop(prompts, turns=2, round=steeper), Stage()).turns) == 2
    with pytest.raises(ConfigError, match="begun with other prompts"):
        run_loop(ws, loop(prompts, turns=2, prompts_per_turn=121), Stage())


def test_a_version_of_somebody_else_is_not_taken_for_the_turns(ws, prompts):
    ws.store.add(entries(60, source="other", better="yes", worse="no"))
    ws.freeze(name="weekly-1", rule=FreezeRule(sources=("other",)))
    with pytest.raises(ConfigError, match="is not this turn's"):
        run_loop(ws, loop(prompts), Stage())


def test_a_turn_that_is_run_again_keeps_the_round_it_began(ws, prompts, monkeypatch):
    """Killed before its round, with other thresholds and settings when it is run again."""
    killer = Killer(monkeypatch)
    killer.left = 5  # before the round
    with pytest.raises(KilledError):
        run_loop(ws, loop(prompts), Stage())
    monkeypatch.undo()
    monkeypatch.setitem(GUIDELINES, "short", Guideline("short", 1, "s", lambda _, a: -len(a), margin=1))
    never = ROUND | {"gate": ROUND["gate"] | {"max_kl_parent": 1e-9}}
    assert run_loop(ws, loop(prompts, round=never), Stage()).turns[0].state == "promoted"


def test_a_round_that_failed_is_planned_anew_with_what_was_changed(ws, prompts, monkeypatch):
    online = {"objective": "grpo", "rewards": [{"by": "http://127.0.0.1:9", "timeout_s": 0.01}], "steps": 2, "prompts": 4,
              "samples": 2, "max_new_tokens": 4}  # fmt: skip
    monkeypatch.setattr("workbench.posting.WAIT_S", 0)
    wrong = loop(prompts, round=ROUND | {"online": online})
    for _ in range(2):  # the same settings fail the same way, at the round
        with pytest.raises(RewardError):
            run_loop(ws, wrong, Stage(where="here"))
    judged, said = ws.store.counts()["judgements"], []
    mended = loop(prompts, round=ROUND | {"online": online | {"rewards": [{"by": "rule:short"}]}})
    (turn,) = run_loop(ws, mended, Stage(where="here", say=said.append)).turns
    assert turn.state == "promoted"
    assert ws.store.counts()["judgements"] == judged, "nobody was asked again"
    assert any("planned anew" in line for line in said)


def test_what_a_turn_took_before_it_was_killed_counts(ws, prompts, monkeypatch):
    killer, hours = Killer(monkeypatch), iter(range(0, 360_000_000, 3600))
    killer.left = 5
    with pytest.raises(KilledError):
        run_loop(ws, loop(prompts), Stage(clock=lambda: next(hours)))
    monkeypatch.undo()
    monkeypatch.setitem(GUIDELINES, "short", Guideline("short", 1, "s", lambda _, a: -len(a), margin=1))
    (turn,) = run_loop(ws, loop(prompts), Stage(clock=lambda: 0.0)).turns
    assert turn.seconds >= 3600, "of the first run; in the second no time passes"


def test_an_ai_judge_is_not_tried_again_once_it_has_judged(ws, prompts, monkeypatch):
    asked = []
    monkeypatch.setattr(looping, "require_trust", lambda *_: asked.append(1))
    killer = Killer(monkeypatch)
    killer.left = 5  # before the round
    with pytest.raises(KilledError):
        run_loop(ws, loop(prompts), Stage())
    assert len(asked) == 1
    monkeypatch.undo()
    monkeypatch.setitem(GUIDELINES, "short", Guideline("short", 1, "s", lambda _, a: -len(a), margin=1))
    monkeypatch.setattr(looping, "require_trust", lambda *_: asked.append(1))
    run_loop(ws, loop(prompts), Stage())
    assert len(asked) == 1


def test_judges_of_one_name_keep_their_own_settings(ws, prompts):
    erring = [[{"by": "simulated:short"}], [{"by": "simulated:short", "error_rate": 0.5}]]
    run_loop(ws, loop(prompts, judges=erring), Stage())
    for comparison, judgements in ws.store.entries():
        lengths = [len(c.text) for c in comparison.completions]
        said = judgements[-1].opinion.verdict
        assert said == ("tie" if lengths[0] == lengths[1] else "first" if lengths[0] < lengths[1] else "second")


def test_it_stops_where_the_gate_refuses(ws, prompts):
    never = ROUND | {"gate": ROUND["gate"] | {"max_kl_parent": 1e-9}}
    ended = run_loop(ws, loop(prompts, turns=3, round=never), Stage())
    assert [t.state for t in ended.turns] == ["rejected"]
    assert "gate refused" in ended.why
    assert ws.registry.resolve("champion").digest == ws.registry.resolve("base").digest


def test_labels_are_a_budget(ws, prompts):
    ended = run_loop(ws, loop(prompts, turns=5, most_labels=100), Stage())
    assert [t.judged for t in ended.turns] == [100]
    assert "100 of at most 100 judgements" in ended.why


def test_people_are_waited_for_on_the_page(ws, prompts):
    people = loop(prompts, judges=[[{"by": "people", "share": 0.5}, {"by": "rule:short", "share": 0.5}]])
    ended = run_loop(ws, people, Stage(wait=False))
    assert ended.turns == ()
    assert ended.waiting > 0
    open_ones = [e.comparison for e in ws.store.entries() if not e.judgements]
    assert Queue(ws.store.engine).progress("weekly-1").items == ended.waiting  # and nothing that is not theirs
    assert len(open_ones) == ended.waiting
    assert {who_judges(c, people.judges_of(1)).by for c in open_ones} == {PEOPLE}

    def annotate(_):
        rule = by_rule("rule:short")
        given = [replace(j, annotator="ann") for j in rule(open_ones)]
        ws.store.add(Entry(c, (j,)) for c, j in zip(open_ones, given, strict=True))

    assert len(run_loop(ws, people, Stage(sleep=annotate)).turns) == 1


def test_judgements_against_what_was_taught_are_noticed_and_declared(ws, prompts, monkeypatch):
    """The first turn teaches short answers; the second turn's people want long ones."""
    long = Guideline("long", 1, "The longer one.", lambda _, a: len(a), margin=1)
    monkeypatch.setitem(GUIDELINES, "long", long)
    shifting = loop(prompts, turns=2, judges=["rule:short", "rule:long"], on_change="declare")
    # Of 28 held-out judgements a tiny model gets 18 right, which might be chance.
    monkeypatch.setattr(looping, "held_out_accuracy", lambda _: proportion(26, 28))
    first, second = run_loop(ws, shifting, Stage()).turns
    assert first.change == "none"  # nothing had been taught before
    assert second.change == "contrary"
    assert "update" in second.proposal
    assert ws.registry.get(second.child).facts["update"] is True


def test_too_few_judgements_are_told(ws, prompts, model, tmp_path):
    with pytest.raises(ConfigError, match="decided ones"):
        run_loop(ws, loop(prompts, prompts_per_turn=8, generate={"max_new_tokens": 1}), Stage())


def test_two_at_once_are_refused(ws, prompts):
    def again(_):
        with pytest.raises(JournalError, match="another process"):
            run_loop(ws, loop(prompts), Stage())

    run_loop(ws, loop(prompts, turns=1), Stage(say=again))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"judges": "somebody"}, "expected people, rule:GUIDELINE"),
        ({"judges": [[{"by": "people", "share": 0.4}]]}, "must sum to 1"),
        ({"judges": []}, "none given"),
        ({"round": {"version": "june"}}, "leave it out"),
        ({"turns": 0}, "greater than or equal to 1"),
        ({"generate": {"count": 3}}, "compare two answers; leave it at 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(prompts, values, words):
    with pytest.raises(ValueError, match=words):
        loop(prompts, **values)


def test_unknown_guidelines_are_refused_before_anything_is_answered(ws, prompts):
    with pytest.raises(ConfigError, match="known guidelines"):
        run_loop(ws, loop(prompts, judges="rule:haiku"), Stage())
    assert ws.store.counts()["comparisons"] == 0


def test_the_verb_runs_it(ws, prompts, tmp_path):
    file = tmp_path / "loop.toml"
    settings = loop(prompts, turns=1).model_dump(mode="json", exclude_unset=True)
    lines = [f"{k} = {json.dumps(v)}" for k, v in settings.items() if k not in {"judges", "generate", "round"}]
    file.write_text(
        "\n".join(lines) + '\njudges = "rule:short"\n[generate]\nmax_new_tokens = 12\n'
        '[round]\nmethod = "plain"\n[round.training]\nmax_length = 128\nlearning_rate = 5e-3\nrank = 4\nalpha = 8\n'
        '[round.evaluation]\nsamples = 6\nmax_new_tokens = 6\nsuites = ["refusal"]\n'
        "[round.gate]\nmin_gain = -1\nmax_retention_drop = 1\nmax_tax = 1\nmax_kl_parent = 50\nmax_kl_base = 50\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["loop", str(file), "--workspace", str(ws.root), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["why"] == "all 1 turns are done"
    assert found["turns"][0]["state"] == "promoted"
