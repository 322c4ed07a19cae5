"""Rounds that learn from fresh answers, on a tiny model: what they climb, what holds them, killed and run again, bad rewards."""

import json
import math
import random

import httpx
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from preference_data.freeze import FreezeRule
from preference_data.records import Judgement, Pairwise, Prompt, Verdict, now
from preference_data.simulate import GUIDELINES, Guideline
from tests.rounds_kit import entries, settings
from tests.tiny_model import build_tiny_model
from workbench.cli import app
from workbench.cli.bars import _facts
from workbench.config import GenerateSettings, NumericsSettings, OnlineSettings, RewardSettings, RoundSettings
from workbench.config.written import as_toml
from workbench.errors import ConfigError, GuardError, JudgeError, RewardError, StopRequested
from workbench.models.load import family_of, load_tokenizer
from workbench.models.numerics import apply_numerics
from workbench.models.sampling import Answer, Sampling, sample
from workbench.models.tokens import Encoded, prompt_ids
from workbench.rewards import Said, checked, reward_named
from workbench.rewards import server as rewards_server
from workbench.rounds.plan import measuring_condition, plan_digest
from workbench.tasks import Progress
from workbench.training.online import asking, writers
from workbench.training.online.guard import Guard
from workbench.training.online.trainer import Fresh
from workbench.training.online.watched import AgainstStart
from workbench.workspace import Workspace

ONLINE = {"objective": "grpo", "rewards": [{"by": "rule:short"}], "steps": 6, "prompts": 8, "samples": 8, "beta": 0.01,
          "max_new_tokens": 12}  # fmt: skip
STEEP = {"training": {"method": "full", "learning_rate": 1e-2, "checkpoint_every": 2, "warmup_share": 0.0}}
"""Adapters cannot move a model this small far."""
LITTLE = {"evaluation": {"samples": 1, "suites": []}}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Rewards that tell a tiny model's answers apart: few letters, and many."""
    for name, sign in (("short", -1), ("long", 1)):
        rule = Guideline(name, 1, name, lambda _, a, sign=sign: sign * len(a), margin=1)
        monkeypatch.setitem(GUIDELINES, name, rule)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def polite():
    return entries(60, source="polite", better="yes", worse="nay", seed=0)


def workspace(root, model):
    ws = Workspace.init(root, base=model)
    for k, name in enumerate(("polite", "short")):
        ws.store.add(entries(60, source=name, better="yes", worse="nay", seed=k))
        ws.freeze(name=name, rule=FreezeRule(sources=(name,)))
    return ws


@pytest.fixture
def ws(tmp_path, model):
    return workspace(tmp_path / "ws", model)


def online(**changes):
    return settings(version="polite", online=ONLINE | changes.pop("online", {}), **(STEEP | changes))


def watched(ws, chosen):
    """Facts of every step, and the outcome."""
    seen = []
    outcome = ws.round(ws.plan(chosen)).run(where="here", watch=seen.append)
    return [p.facts for p in seen if p.step == "optimise" and "answer_tokens" in p.facts], outcome


@pytest.mark.parametrize("objective", ["grpo", "rloo", "dpo", "best"])
def test_every_objective_earns_more(ws, objective):
    facts, outcome = watched(ws, online(online={"objective": objective, "steps": 30}))
    rewards = [each["reward"] for each in facts]
    assert len(facts) == 30
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 1
    assert facts[0]["kl"] == pytest.approx(0, abs=1e-3)  # the parent is the anchor
    assert facts[-1]["kl"] > 0.1
    assert outcome.state == "promoted"


def test_what_is_told_of_a_step_is_of_its_own_answers(ws, monkeypatch):
    steps = []
    found_before = Fresh.rewards
    monkeypatch.setattr(
        Fresh, "rewards", lambda self, indices, answers: steps.append(answers) or found_before(self, indices, answers)
    )
    facts, _ = watched(ws, online(online={"prompts": 1, "steps": 4}))
    assert len(facts) == len(steps) == 4
    for each, answers in zip(facts, steps, strict=True):
        tokens = sum(len(a.encoded.completion) for a in answers)
        assert each["answer_tokens"] == pytest.approx(tokens / 8)
        assert each["truncated"] == pytest.approx(sum(not a.finished for a in answers) / 8)
        assert each["kl_per_token"] == pytest.approx(8 * each["kl"] / tokens, rel=1e-3, abs=1e-6)
        # A loss of fresh answers starts over with every step, and neither pairs nor their answers are trained on.
        assert not {"loss", "accuracy", "kl_parent", "pairs_per_s"} & each.keys()
        assert each["prompts_per_s"] > 0
    assert facts[-1]["kl"] > 1e-3


def test_the_verb_tells_what_its_own_answers_earned(ws, tmp_path):
    chosen = online(parent="base", online={"steps": 3, "guard": None})
    facts, outcome = watched(ws, chosen)
    (tmp_path / "round.toml").write_text(as_toml(chosen), encoding="utf-8")
    given = ["round", "-s", str(tmp_path / "round.toml"), "-w", str(ws.root), "--workers", "here"]
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)["fresh"]
    assert found["objective"] == "grpo"
    assert found["reward_before"] == pytest.approx(
        facts[0]["reward"]
    )  # of what the journal was told, at least both ends
    assert found["reward"] == pytest.approx(facts[-1]["reward"])
    assert found["tokens"] == pytest.approx(facts[-1]["answer_tokens"])
    assert found["truncated"] == pytest.approx(facts[-1]["truncated"])
    (kl,) = found["kl"].items()
    base = ws.registry.resolve("base").digest
    suite, condition = f"samples/{ws.version('polite').digest}", measuring_condition(ws.plan(chosen))
    nats, tokens = (
        sum(i.value for i in ws.ledger.items(outcome.child.digest, suite, metric, condition))
        for metric in (f"kl/{base}", "tokens")
    )
    assert (kl[0], kl[1]["value"]) == (base, pytest.approx(nats / tokens))
    shown = " ".join(CliRunner().invoke(app, given).stdout.split())
    assert "what its own answers earned" in shown
    assert f"mean reward of its answers, last steps {facts[-1]['reward']:.3f}" in shown
    dry = " ".join(CliRunner().invoke(app, [*given, "--dry-run"]).stdout.split())
    assert "fresh answers grpo, beta 0.01, at replayed prompts 0.05" in dry
    assert "3 (8 new prompts x 8 fresh answers per step)" in dry
    assert "reward rule:short" in dry
    assert "pairs to take prompts from" in dry
    assert "loss" not in dry


def test_the_line_under_way_has_no_loss_for_fresh_answers():
    facts = {
        "reward": 1.5,
        "kl": 2.0,
        "kl_per_token": 0.125,
        "answer_tokens": 16.0,
        "truncated": 0.25,
        "distinct_answers": 0.5,
        "prompts_per_s": 2.0,
    }
    assert _facts(Progress("optimise", 1, 2, facts)).split("  ") == [
        "reward 1.500", "KL to the anchors 0.125 nats per token", "16 tokens an answer", "25% cut off", "50% distinct",
        "2.00 prompts/s",
    ]  # fmt: skip


def test_distilling_goes_back_to_the_anchor(ws):
    first = ws.round(ws.plan(online(online={"steps": 30}))).run(where="here").child
    back = settings(
        version="short", parent=first.digest, anchors=[{"policy": "base", "weight": 1.0}],
        online=ONLINE | {"objective": "distil", "rewards": [], "steps": 30, "beta": 1.0},
        **STEEP,
    )  # fmt: skip
    facts, _ = watched(ws, back)
    assert sum(f["kl"] for f in facts[-5:]) < 0.5 * sum(f["kl"] for f in facts[:5])
    assert "reward" not in facts[0]


def test_a_larger_beta_stays_nearer(ws):
    near, far = (watched(ws, online(online={"beta": beta, "steps": 30}))[0] for beta in (30.0, 0.001))
    assert sum(f["kl"] for f in near[-5:]) < 0.5 * sum(f["kl"] for f in far[-5:])


def test_a_target_steers_the_kl(ws):
    free, steered = (
        watched(ws, online(online={"beta": 0.01, "steps": 60, "kl_target": target}))[0] for target in (None, 0.2)
    )
    assert sum(f["kl"] for f in steered[-10:]) < sum(f["kl"] for f in free[-10:])


def test_what_all_rounds_may_move_from_the_base_steers_the_kl_as_well(ws):
    loose = {"beta": 0.5, "steps": 24, "kl_target": 1000.0}  # never reached: the weight falls all the time
    free, steered = (watched(ws, online(online=loose | more, **LITTLE))[0] for more in ({}, {"kl_base_budget": 0.005}))
    assert "kl_base" not in free[0]
    # The base is the only anchor.
    assert sum(f["kl_base"] for f in steered[-8:]) < 0.7 * sum(f["kl_per_token"] for f in free[-8:])


def test_the_kl_to_the_base_is_told_per_token(ws):
    facts, _ = watched(ws, online(online={"prompts": 1, "steps": 4, "kl_target": 9.0, "kl_base_budget": 9.0}, **LITTLE))
    # Of one prompt's answers to the base, which is the only anchor, both are sums over tokens by their number.
    assert [f["kl_base"] for f in facts] == pytest.approx([f["kl_per_token"] for f in facts], rel=1e-3, abs=1e-6)
    assert facts[-1]["kl_base"] > 1e-4


def test_a_round_that_would_begin_beyond_what_all_may_move_is_refused(ws):
    few = {"evaluation": {"suites": []}}
    first = ws.round(ws.plan(online(online={"steps": 2}, **few))).run(where="here").child.digest

    def second(budget, **changes):
        held = ONLINE | {"kl_target": 6.0, "kl_base_budget": budget}
        return ws.plan(settings(version="short", parent=first, online=held, **(STEEP | few | changes)))

    base, suite = ws.registry.resolve("base").digest, f"samples/{ws.version('polite').digest}"
    nats, tokens = (
        sum(i.value for i in ws.ledger.items(first, suite, metric, measuring_condition(second(1.0))))
        for metric in (f"kl/{base}", "tokens")
    )
    moved = nats / tokens
    assert moved > 0
    with pytest.raises(
        ConfigError, match=rf"is {moved:.3f} nats per token from the base, so that nothing is left of it"
    ):
        ws.round(second(0.99 * moved))
    ws.round(second(1.01 * moved))
    from_base = second(0.99 * moved, start="base", method="retrain", replay={"share": 0.2})
    ws.round(from_base)  # begins where nothing is spent


def test_fresh_answers_train_what_is_merged_afterwards_or_at_every_step(ws):
    base = load_file(f"{ws.registry.ref(ws.registry.resolve('base')).path}/model.safetensors")

    def trained(**more):
        child = watched(ws, online(parent="base", **more))[1].child
        return load_file(f"{ws.registry.ref(child).path}/model.safetensors")

    plain, averaged = trained(), trained(after={"keep": [0.5]})
    for name, start in base.items():
        assert torch.allclose(averaged[name], (start + plain[name]) / 2, atol=1e-6), name
    # The start is the base, whose difference from itself adds nothing: of every step of the same size a half is left.
    halved = trained(merging={"kind": "dare", "share": 0.5, "density": 1.0})
    moved = [float(sum((each[name] - base[name]).square().sum() for name in base) ** 0.5) for each in (halved, plain)]
    assert 0.3 < moved[0] / moved[1] < 0.7


@pytest.mark.parametrize("more", [{}, {"merging": {"kind": "dare", "share": 0.0}}], ids=["plain", "merged"])
def test_stopped_and_run_again_is_the_same_child(tmp_path, model, more):
    whole = watched(workspace(tmp_path / "one", model), online(**more))[1]
    other, steps = workspace(tmp_path / "two", model), []

    def stop(progress):
        if progress.step == "optimise" and "answer_tokens" in progress.facts:
            steps.append(progress.done)
            if len(steps) == 3:
                other.journal.request_stop(other.journal.rounds()[-1].digest, by="test")

    planned = other.round(other.plan(online(**more)))
    with pytest.raises(StopRequested):
        planned.run(where="here", watch=stop)
    again = planned.run(where="here", watch=stop)
    assert steps[-1] == 6
    assert len(steps) <= 6 + 1  # what was done was not done again, but for steps after the last checkpoint
    assert again.child.digest == whole.child.digest


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_on_ray_it_is_the_same_child(tmp_path, model, monkeypatch):
    rule = ONLINE | {"rewards": [{"by": "rule:telegram"}]}  # a worker knows the project's own guidelines
    here = watched(workspace(tmp_path / "one", model), online(online=rule))[1]
    there = workspace(tmp_path / "two", model)
    outcome = there.round(there.plan(online(online=rule))).run(where="ray")
    assert outcome.child.digest == here.child.digest


def test_replayed_prompts_are_held_and_have_no_reward(ws):
    first = ws.round(ws.plan(online())).run(where="here").child
    second = settings(
        version="short", parent=first.digest, method="recommended", online=ONLINE | {"beta_old": 1.0}, **STEEP
    )
    plan = ws.plan(second)
    assert plan.penalties.hold == 0  # of pairs
    facts, outcome = watched(ws, second)
    assert len(facts) == ONLINE["steps"]
    assert outcome.child.parent == first.digest


def test_old_prompts_come_as_often_as_their_share_says_whatever_the_epochs(ws):
    first = ws.round(ws.plan(online())).run(where="here").child
    many = settings(version="short", parent=first.digest, method="recommended", online=ONLINE,
                    training=STEEP["training"] | {"epochs": 3})  # fmt: skip
    once = settings(version="short", parent=first.digest, method="recommended", online=ONLINE, **STEEP)
    assert ws.plan(many).replay.draw == "round"
    assert plan_digest(ws.plan(many)) == plan_digest(ws.plan(once))
    weighed = settings(version="short", parent=first.digest, method="recommended", online=ONLINE, training=many.training.model_dump(),
                       replay={"weight": "balanced", "age_weight": 0.5})  # fmt: skip
    assert plan_digest(ws.plan(weighed)) == plan_digest(ws.plan(many)), "prompts weigh nothing"


def test_the_loss_of_pairs_does_not_change_a_round_on_fresh_answers(ws):
    for objective in ({"beta": 0.5}, {"loss": "cppo"}, {"loss": "robust", "label_smoothing": 0.1}):
        assert plan_digest(ws.plan(online(objective=objective))) == plan_digest(ws.plan(online()))
        pairs = settings(version="polite", objective=objective)
        assert plan_digest(ws.plan(pairs)) != plan_digest(ws.plan(settings(version="polite")))


@pytest.mark.parametrize("name", ["epochs", "batch_size", "accumulation"])
def test_what_counts_pairs_does_not_change_a_round_on_fresh_answers(ws, name):
    changed = {"training": STEEP["training"] | {name: 3}}
    assert plan_digest(ws.plan(online(**changed))) == plan_digest(ws.plan(online()))
    on_pairs = settings(version="polite", **changed)
    assert plan_digest(ws.plan(on_pairs)) != plan_digest(ws.plan(settings(version="polite", **STEEP)))


def test_answers_that_no_prompt_fits_before_are_refused_when_planned(ws):
    assert ws.plan(online(online={"max_new_tokens": 511})).online.max_new_tokens == 511  # of 512 positions
    with pytest.raises(
        ConfigError, match=r"max_new_tokens = 512, but base \S+ reads at most 512 tokens .* less than 512"
    ):
        ws.plan(online(online={"max_new_tokens": 512}))
    assert ws.plan(settings(version="polite", online={"max_new_tokens": 512})).online == OnlineSettings(
        max_new_tokens=512
    )


POSITIONS = 256


@pytest.fixture(scope="module")
def learned_positions(tmp_path_factory):
    """A model of the same tokenizer whose positions are learned: one token further there is nothing to look up.

    With it the tokens of a prompt that half of the prompts have no more than.
    """
    folder = build_tiny_model(tmp_path_factory.mktemp("learned"))
    tokenizer = load_tokenizer(str(folder))
    lengths = sorted(len(prompt_ids(tokenizer, e.comparison.prompt)) for e in polite())
    most = lengths[len(lengths) // 2]
    assert lengths[0] <= most < lengths[-1]
    shape = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    GPT2LMHeadModel(shape).save_pretrained(folder)
    return folder, most


def test_prompts_that_leave_no_room_for_an_answer_are_left_out_and_counted(tmp_path, learned_positions):
    folder, most = learned_positions
    ws = Workspace.init(tmp_path / "ws", base=folder)
    ws.store.add(polite())
    ws.freeze(name="polite", rule=FreezeRule(sources=("polite",)))
    chosen = online(online={"steps": 1, "prompts": 2, "samples": 2, "max_new_tokens": POSITIONS - most}, **LITTLE)
    tokenizer = load_tokenizer(str(folder))
    prompts = {p.prompt.key: p.prompt for p in ws.version("polite").pairs("train")}.values()
    long = sum(len(prompt_ids(tokenizer, prompt)) > most for prompt in prompts)
    assert 0 < long < len(prompts)
    assert ws.round(ws.plan(chosen)).estimate().workload.no_room == long
    seen = []
    ws.round(ws.plan(chosen)).run(where="here", watch=seen.append)
    (told,) = [p.facts["prompts_left_out"] for p in seen if "prompts_left_out" in p.facts]
    assert told == long
    shortest = min(len(prompt_ids(tokenizer, prompt)) for prompt in prompts)
    with pytest.raises(ConfigError, match="no training prompt shorter than .* lower the latter"):
        # One token more than leaves room for the shortest prompt.
        ws.round(ws.plan(chosen.model_copy(update={
            "online": chosen.online.model_copy(update={"max_new_tokens": POSITIONS - shortest + 1})
        }))).run(where="here")  # fmt: skip


def test_a_round_puts_its_prompts_into_tokens_once_before_its_first_step(ws, monkeypatch):
    asked, found_before = [], asking.prompt_ids
    monkeypatch.setattr(asking, "prompt_ids", lambda _, prompt: asked.append(prompt.key) or found_before(_, prompt))
    watched(ws, online(online={"steps": 1, "prompts": 2}, **LITTLE))
    assert sorted(asked) == sorted({p.prompt.key for p in ws.version("polite").pairs("train")})


def test_prompts_that_leave_no_room_are_not_answered_outside_a_round(tmp_path, learned_positions):
    folder, most = learned_positions
    ws = Workspace.init(tmp_path / "ws", base=folder)
    tokenizer = load_tokenizer(str(folder))
    prompts = {e.comparison.prompt.key: e.comparison.prompt for e in polite()}.values()
    lengths = [len(prompt_ids(tokenizer, prompt)) for prompt in prompts]
    (tmp_path / "ask.txt").write_text("".join(f"{p.messages[-1].content}\n" for p in prompts))

    def generate(room):
        how = GenerateSettings(max_new_tokens=POSITIONS - room, count=1, numerics={"threads": 1})
        return ws.generate(
            tmp_path / "ask.txt", tmp_path / "answers.jsonl", settings=how, where="here", watch=seen.append
        )

    seen = []
    made = generate(most)
    left_out = sum(length > most for length in lengths)
    assert (made.prompts, made.left_out) == (len(lengths) - left_out, left_out)
    assert left_out > 0
    assert [p.facts["prompts_left_out"] for p in seen if "prompts_left_out" in p.facts] == [left_out]
    assert (tmp_path / "answers.jsonl").read_text().count("\n") == made.prompts
    too_few = min(lengths) - 1
    with pytest.raises(
        ConfigError, match=rf"no prompt leaves room for an answer of max_new_tokens = {POSITIONS - too_few}"
    ):
        generate(too_few)


@pytest.mark.parametrize(("objective", "text"), [("grpo", ""), ("dpo", "tea tea tea")])
def test_a_policy_that_says_nothing_or_only_repeats_ends_its_round_and_is_told(ws, monkeypatch, objective, text):
    def the_same(_, tokenizer, prompts, *__, **___):
        said = (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        return [
            Answer(i, text, Encoded(tuple(prompt_ids(tokenizer, p)), said), finished=True)
            for i, p in enumerate(prompts)
        ]

    monkeypatch.setattr(writers, "sample", the_same)
    facts, outcome = watched(ws, online(online={"objective": objective, "scaled": True, "steps": 2}, **LITTLE))
    assert [(each["distinct_answers"], each["truncated"], each["reward"]) for each in facts] == [
        (1 / 8, 0.0, -len(text))
    ] * 2
    assert all(math.isfinite(value) for each in facts for value in each.values())
    assert outcome.child.digest  # finite: it was saved, loaded again and proved


def test_an_exploited_reward_is_caught(ws):
    guarded = online(
        online={"steps": 60, "rewards": [{"by": "rule:long"}], "guard": {"by": "rule:short"}, "guard_window": 8}
    )
    with pytest.raises(GuardError, match="is being exploited"):
        ws.round(ws.plan(guarded)).run(where="here")
    assert ws.registry.resolve("champion").digest == ws.registry.resolve("base").digest
    assert ws.journal.rounds()[-1].state == "failed"


JUDGE = "ai:http://127.0.0.1:9/v1#judge"


def judged_by(monkeypatch, decide):
    """Has an endpoint say what `decide` makes of the two answers it is shown; the questions and pairs it was shown."""
    shown = []

    def handler(request):
        text = json.loads(request.content)["messages"][-1]["content"]
        asked, answers = text.split("Question:\n")[1].split("\nWhich answer is better?")[0].split("\n\nAnswer A:\n")
        first, second = (each.strip() for each in answers.split("\n\nAnswer B:\n"))
        shown.append((asked, first, second))
        return httpx.Response(200, json={"choices": [{"message": {"content": decide(first, second)}}]})

    served(monkeypatch, handler)
    return shown


def test_a_judge_that_prefers_the_starts_answers_more_and_more_ends_the_round(ws, monkeypatch):
    judged_by(monkeypatch, lambda a, b: "tie" if len(a) == len(b) else "A" if len(a) < len(b) else "B")
    exploited = {"steps": 40, "rewards": [{"by": "rule:long"}], "guard": {"by": JUDGE}, "guard_window": 8}
    with pytest.raises(
        GuardError, match=rf"the share of answers that {JUDGE} prefers to the start's, which .* fell by 0\.\d"
    ):
        ws.round(ws.plan(online(online=exploited))).run(where="here")
    assert ws.registry.resolve("champion").digest == ws.registry.resolve("base").digest


def test_a_judge_is_shown_the_starts_answers_in_both_orders_and_asked_no_more_when_the_round_has_ended(ws, monkeypatch):
    shown = judged_by(monkeypatch, lambda *_: "A")  # whatever stands first: a tie
    guarded = online(
        online={
            "steps": 10,
            "prompts": 2,
            "guard": {"by": JUDGE, "guideline": "Be brief."},
            "guard_window": 5,
        },
        **LITTLE,
    )
    facts, outcome = watched(ws, guarded)
    assert [each["guard"] for each in facts] == [0.5] * 10
    assert [answers for _, *answers in shown[:2]] == [["4", "5"], ["5", "4"]]  # before anything was computed
    assert shown[2::2] == [(question, b, a) for question, a, b in shown[3::2]]
    base, numerics = ws.registry.ref(ws.registry.resolve("base")), NumericsSettings()
    family = family_of(base, numerics)
    with apply_numerics(numerics), family.using(base) as start:
        prompts = [Prompt.of(question) for question, *_ in shown[2::2]]
        answers = sample(start, family.tokenizer, prompts, Sampling(12, 1.0, 1.0, 8, 0), layout=family.layout)
    assert [a.text for a in answers] == [second for *_, second in shown[2::2]]
    judged_by(monkeypatch, lambda *_: "nonsense")
    assert ws.round(ws.plan(guarded)).run(where="here").child.digest == outcome.child.digest


def test_a_judge_that_talks_nonsense_is_refused_before_anything_is_computed(ws, monkeypatch):
    judged_by(monkeypatch, lambda *_: "both are fine")
    guarded = online(online={"steps": 10, "guard": {"by": JUDGE}, "guard_window": 5})
    with pytest.raises(JudgeError, match="2 of 2 answers name neither A, B nor tie"):
        ws.round(ws.plan(guarded)).run(where="here")
    assert not ws.journal.rounds()


def test_what_a_judge_says_of_a_step_by_hand():
    asked, started = [], []

    def judge(comparisons):
        asked.extend([one.text for one in c.completions] for c in comparisons)
        verdicts = {"won": Verdict.FIRST, "lost": Verdict.SECOND}
        return [
            Judgement(c.key, JUDGE, Pairwise(verdicts.get(c.completions[0].text, Verdict.TIE)), now())
            for c in comparisons
        ]

    def start(prompts):
        questions = [p.messages[-1].content for p in prompts]
        started.extend(questions)
        return ["" if question == "nothing said then" else "before" for question in questions]

    def said(*answers):
        return [Said(Prompt.of(prompt), text, {}, finished=True) for prompt, text in answers]

    says = AgainstStart(judge, start)
    # The first answer to each prompt counts: 1 + 0 + 1/2 by the judge; the same 1/2, nothing 0, and against nothing 1 without it.
    step = said(("a", "won"), ("a", "lost"), ("b", "lost"), ("b", "won"), ("c", "alike"), ("d", "before"), ("e", " "),
                ("nothing said then", "won"))  # fmt: skip
    assert says(step) == pytest.approx((1 + 0 + 1 / 2 + 1 / 2 + 0 + 1) / 6)
    assert asked == [["won", "before"], ["lost", "before"], ["alike", "before"]]
    assert says(said(("a", "won"))) == 1
    assert started == ["a", "b", "c", "d", "e", "nothing said then"]  # once each


def guard(**changes):
    return Guard("other", lambda said: 0.0, **({"window": 5, "steps": 40} | changes))


def test_the_guard_compares_windows_and_outlives_a_kill(tmp_path):
    whole = guard(steps=10)
    for k in range(9):
        whole.saw(k + 0.1 * (k % 2), -k)
    whole.save(tmp_path)
    again = guard(steps=10)
    again.load(tmp_path)
    # (5.1 + 6 + 7.1 + 8 + 9.1) / 5 - (0 + 1.1 + 2 + 3.1 + 4) / 5 = 7.06 - 2.04
    with pytest.raises(GuardError, match=r"step 10: the trained reward rose by 5\.02 while other, .* fell by 5:"):
        again.saw(9.1, -9)
    agreeing, quiet = guard(), guard()
    for k in range(40):
        agreeing.saw(k, k)
        quiet.saw(k, (-1) ** k)  # noise that does not fall


def steps_until_stopped(held_out, **changes):
    """Steps after which the guard ends a round whose trained reward rises all the time."""
    one = guard(**({"window": 10, "steps": len(held_out)} | changes))
    for k, value in enumerate(held_out):
        try:
            one.saw(k, value)
        except GuardError:
            return k + 1
    return None


def test_the_guard_looks_when_a_window_is_full_and_at_the_last_step():
    assert steps_until_stopped([0.1 * (k % 2) - 100 * (k >= 10) for k in range(60)]) == 20
    # At 30 eight of the newest ten lie lower: means 0 and -80, the error of the second (16000 / 9 / 10)^0.5 = 13.3.
    assert steps_until_stopped([0.1 * (k % 2) - 100 * (k >= 22) for k in range(60)]) == 30
    # At 20 two of them: -20 with an error of 13.3 again; at the last step seven: -70, (21000 / 9 / 10)^0.5 = 15.3.
    assert steps_until_stopped([0.1 * (k % 2) - 100 * (k >= 18) for k in range(25)]) == 25


def test_welchs_test_by_hand():
    # Means 3 and 0.5, variances 2.5 and 2.5 over five steps: t = 2.5 / 1 with 8 degrees of freedom, one-sided 0.0185.
    falls = [1.0, 2, 3, 4, 5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert steps_until_stopped(falls, window=5) == 10  # one look at 0.025
    assert steps_until_stopped(falls, window=5, steps=15) is None  # the first of two at 0.0125


def test_a_held_out_reward_that_stays_where_it_is_stops_few_rounds():
    rng, rounds = random.Random(0), 400
    stopped = [steps_until_stopped([rng.gauss(0, 1) for _ in range(60)]) for _ in range(rounds)]
    assert rounds - stopped.count(None) <= 0.05 * rounds


def test_a_held_out_reward_that_falls_is_still_found():
    rng, rounds = random.Random(1), 100
    stopped = [steps_until_stopped([rng.gauss(-2 * (k >= 30), 1) for k in range(60)]) for _ in range(rounds)]
    assert stopped.count(None) <= 0.1 * rounds


SAID = [Said(Prompt.of("hello"), text, {}, finished=True) for text in ("a", "b")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1.0, math.nan], "expected a finite number"),
        ([1.0, math.inf], "expected a finite number"),
        ([1.0, "good"], "got 'good' for 'b'; expected a number"),
        ([1.0, None], "expected a number"),
        ([True, False], "expected a number"),
        ([1.0], "gave 1 numbers for 2 answers"),
    ],
)
def test_nonsense_is_refused_with_the_answer_it_was_about(answer, words):
    with pytest.raises(RewardError, match=words):
        checked("code:mine", lambda _: answer)(SAID)


def test_a_reward_that_fails_says_which_and_why():
    def broken(_):
        raise ZeroDivisionError("by zero")

    with pytest.raises(RewardError, match="code:mine: failed: ZeroDivisionError: by zero"):
        checked("code:mine", broken)(SAID)


def served(monkeypatch, handler):
    monkeypatch.setattr(httpx, "post", httpx.Client(transport=httpx.MockTransport(handler)).post)


def test_a_server_is_asked_and_answers(monkeypatch):
    asked = []

    def handler(request):
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"rewards": [0.5, 1]})

    served(monkeypatch, handler)
    assert reward_named(RewardSettings(by="http://127.0.0.1:9/score"))(SAID) == [0.5, 1.0]
    assert [row["answer"] for row in asked[0]["answers"]] == ["a", "b"]
    assert asked[0]["answers"][0]["messages"] == [{"role": "user", "content": "hello"}]


def test_a_server_that_is_down_is_tried_three_times_and_nothing_is_lost(monkeypatch):
    tries, waits = [], []

    def handler(request):
        tries.append(1)
        raise httpx.ConnectTimeout("too slow")

    served(monkeypatch, handler)
    reward = checked("it", rewards_server.by_server("http://127.0.0.1:9", timeout_s=0.1, sleep=waits.append))
    with pytest.raises(RewardError, match=r"3 tries failed, the last with ConnectTimeout: too slow; start the server"):
        reward(SAID)
    assert (len(tries), len(waits)) == (3, 2)


@pytest.mark.parametrize("body", ["nonsense", "[]", '{"reward": 1}'])
def test_a_server_that_answers_nonsense_is_told(monkeypatch, body):
    served(monkeypatch, lambda _: httpx.Response(200, text=body))
    with pytest.raises(RewardError, match='no JSON with "rewards" came back'):
        reward_named(RewardSettings(by="http://127.0.0.1:9"))(SAID)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objective": "grpo"}, "needs rewards"),
        ({"objective": "distil", "rewards": [{"by": "rule:short"}]}, "has no reward"),
        ({"objective": "grpo", "rewards": [{"by": "gut"}]}, "expected rule:GUIDELINE"),
        ({"objective": "grpo", "rewards": [{"by": "rule:a"}], "guard": {"by": "rule:a"}}, "is trained on"),
        ({"objective": "distil", "kl_base_budget": 0.5}, "kl_target is off"),
        ({"objective": "grpo", "rewards": [{"by": JUDGE}]}, "expected rule:GUIDELINE"),
        (
            {"objective": "grpo", "rewards": [{"by": "rule:a"}], "guard": {"by": "ai:http://127.0.0.1:9"}},
            "or ai:URL#MODEL",
        ),
        (
            {"objective": "grpo", "rewards": [{"by": "rule:a"}], "guard": {"by": "rule:b", "guideline": "x"}},
            "leave it out",
        ),
        ({"objective": "distil", "guard": {"by": "rule:a"}}, "no reward that could rise"),
        ({"objective": "grpo", "rewards": [{"by": "rule:a"}], "samples": 1}, "greater than or equal to 2"),
        ({"objective": "grpo", "rewards": [{"by": "rule:a"}], "guard": {"by": "rule:b"}, "guard_window": 4}, "to 5"),
        ({"objective": "grpo", "rewards": [{"by": "rule:a"}], "guard": {"by": "rule:b"}, "steps": 19}, "at least 20"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        OnlineSettings.model_validate(values)


@pytest.mark.parametrize(
    ("by", "words"),
    [("rule:haiku", "known guidelines: telegram"), ("code:none", "no installed package registers it")],
)
def test_unknown_rewards_list_the_known_ones(by, words):
    with pytest.raises(ConfigError, match=words):
        reward_named(RewardSettings(by=by))


def test_a_round_without_fresh_answers_keeps_its_identity():
    assert "online" not in RoundSettings().model_dump(exclude_defaults=True)
