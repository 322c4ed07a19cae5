"""Reward models: what they learn, killed and gone on with, averaged, measured on every version, used as rewards and judges."""

import json
import math
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from preference_data.freeze import FreezeRule
from preference_data.records import Prompt
from tests.rounds_kit import entries, settings
from tests.tiny_model import build_tiny_model
from workbench import assembly
from workbench.cli import app
from workbench.config import NumericsSettings, RewardModelSettings
from workbench.drift.metrics import accuracy, series
from workbench.errors import ConfigError, PolicyError, StopRequested
from workbench.failpoints import VARIABLE
from workbench.maths.reward_losses import bradley_terry, off_centre
from workbench.models.reward_model import HEAD_FILE, RewardModel
from workbench.models.tokens import encode_answer, encode_pair
from workbench.reward_list import RewardModels, measured
from workbench.reward_models import average_reward_models, pinned, train_reward_model
from workbench.reward_tasks import RewardJob
from workbench.rewards import Said
from workbench.rounds.planning import version_ref
from workbench.training import optimise
from workbench.training import reward_model as training
from workbench.training.memory import Fit
from workbench.workspace import Workspace

FAST = {"training": {"learning_rate": 1e-2, "rank": 4, "alpha": 8, "max_length": 128, "warmup_share": 0.0, "epochs": 2,
                     "checkpoint_every": 2}}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def workspace(root, model):
    ws = Workspace.init(root, base=model)
    for k, (name, better, worse) in enumerate((("polite", "yes please", "no"), ("rude", "no", "yes please"))):
        ws.store.add(entries(60, source=name, better=better, worse=worse, seed=k))
        ws.freeze(name=name, rule=FreezeRule(sources=(name,)))
    return ws


def chosen(version="polite", **changes):
    training = FAST["training"] | changes.pop("training", {})
    return RewardModelSettings.model_validate({"version": version, "training": training, **changes})


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    ws = workspace(tmp_path_factory.mktemp("ws") / "ws", model)
    train_reward_model(ws, "july", chosen(), where="here")
    train_reward_model(ws, "august", chosen("rude"), where="here")
    return ws


def test_losses_by_hand():
    chosen_, rejected, margin = (torch.tensor([x], dtype=torch.float64) for x in (1.5, 0.5, 0.25))
    # -log sigma(1.5 - 0.5 - 0.25) = log(1 + e^-0.75)
    assert bradley_terry(chosen_, rejected, margin).item() == pytest.approx(math.log1p(math.exp(-0.75)), rel=1e-12)
    assert off_centre(chosen_, rejected).item() == 4.0
    inputs = [torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True) for _ in range(2)]
    margins = torch.tensor([0.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c, r: bradley_terry(c, r, margins), inputs)
    assert torch.autograd.gradcheck(off_centre, inputs)


def test_it_learns_its_version_and_forgets_nothing_it_never_knew(trained):
    models = RewardModels(trained)
    polite, rude = (trained.version(name).digest for name in ("polite", "rude"))
    july, august = (measured(trained, models.find(name)) for name in ("july", "august"))
    assert july[polite].accuracy.value == 1.0
    # The second version wants the opposite, so each is wrong about the other's.
    assert july[rude].accuracy.value == 0.0
    assert august[rude].accuracy.value == 1.0
    assert august[polite].accuracy.value == 0.0
    assert july[rude].overconfident.value > 0.5  # sure and wrong
    assert july[polite].overconfident.value < 0  # right, and never quite sure
    assert july[polite].slices["domain=polite"][0] == july[polite].accuracy


def test_numbers_are_those_of_the_ledger_and_of_the_model_asked_anew(trained):
    record = RewardModels(trained).find("july")
    version = trained.version("polite")
    suite = f"reward/{version.digest}"
    (condition,) = {m.numerics for m in trained.ledger.suites(record.digest) if m.suite == suite}
    items = trained.ledger.items(record.digest, suite, "margin", condition)
    assert measured(trained, record)[version.digest].accuracy == accuracy(series(items))
    model = RewardModel(RewardModels(trained).ref(record), NumericsSettings())
    for pair in version.pairs("test")[:5]:
        one = encode_pair(model.tokenizer, pair, max_length=128)
        chosen_, rejected = model([*one])
        stored = next(i.value for i in items if i.item == pair.key)
        assert chosen_ - rejected == pytest.approx(stored, abs=1e-4)
        assert (
            encode_answer(model.tokenizer, pair.prompt, pair.chosen, max_length=128).completion[-1]
            == one.chosen.completion[-1]
        )


def test_trained_again_it_is_the_same_and_a_name_is_one_model(trained):
    before = RewardModels(trained).entries()
    assert train_reward_model(trained, "another-name", chosen(), where="here").name == "july"
    assert RewardModels(trained).entries() == before
    with pytest.raises(ConfigError, match="is taken"):
        train_reward_model(trained, "july", chosen(margin=1.0), where="here")
    with pytest.raises(ConfigError, match="there are: july, august"):
        RewardModels(trained).find("june")
    assert not (trained.root / "scratch" / before[0].plan).exists()
    with pytest.raises(ConfigError, match=r"training.max_length = 513, but base \S+ reads at most 512 tokens"):
        train_reward_model(trained, "long", chosen(training={"max_length": 513}), where="here")


def test_weight_zero_and_a_margin_count(trained):
    # A pair of no weight teaches nothing, and what people found much better has to be further ahead.
    rows = [
        {"prompt": [1, 2], "chosen": [3], "rejected": [4], "weight": w, "margin": m}
        for w, m in ((0.0, 0.0), (1.0, 2.0))
    ]
    from workbench.training.reward_model import RewardCollator, RewardTrainer

    class Model:
        device = torch.device("cpu")

    trainer = RewardTrainer.__new__(RewardTrainer)
    trainer.centre = 0.0
    states = torch.tensor([[1.0], [1.0], [0.0], [0.0]], requires_grad=True)
    trainer.head = lambda given: given[:, 0]
    import workbench.training.reward_model as module

    original, module.ends = module.ends, lambda *_: states
    try:
        inputs = RewardCollator(0, layout="plain", tokens=99).at_once(rows)
        parts, ahead = trainer.measure(Model(), inputs)
    finally:
        module.ends = original
    assert ahead.tolist() == [1.0, 1.0]
    # (0 x log(1 + e^-1) + 1 x log(1 + e^-(1 - 2))) / 2
    assert parts.total.item() == pytest.approx(math.log1p(math.e) / 2, rel=1e-6)
    parts.total.backward()
    assert states.grad[0].item() == states.grad[2].item() == 0.0
    assert states.grad[1].item() < 0 < states.grad[3].item()


def train_in_child(root):
    os.environ[VARIABLE] = "training.step:3"
    train_reward_model(Workspace(Path(root)), "july", chosen(), where="here")


def test_killed_in_the_middle_it_goes_on_to_the_same_weights(model, trained, tmp_path):
    ws = workspace(tmp_path / "ws", model)
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=train_in_child, args=(str(ws.root),))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert RewardModels(ws).entries() == []
    made = train_reward_model(Workspace(ws.root), "july", chosen(), where="here")
    assert made.digest == RewardModels(trained).find("july").digest


def test_it_goes_on_computing_batches_as_it_began(trained, tmp_path, monkeypatch):
    job = RewardJob(trained.registry.ref(trained.registry.resolve("base")), version_ref(trained.version("polite").digest,
                    trained.versions.directory), chosen(), "plan", str(tmp_path), str(tmp_path / "made"))  # fmt: skip
    (tmp_path / "made").mkdir()
    asked = []
    monkeypatch.setattr(optimise, "fit", lambda *_, **__: asked.append(1) or Fit(150, recompute=False))
    with pytest.raises(StopRequested):
        training.train_reward_model(job, lambda p: p.step == "optimise" and p.done == 3)
    training.train_reward_model(job, lambda _: False)
    assert len(asked) == 1, "there may be less memory by then, and sums in other parts"


def test_an_average_is_the_mean_of_all_weights(trained, tmp_path):
    models = RewardModels(trained)
    train_reward_model(trained, "july-2", chosen(training={"seed": 1}), where="here")
    made = average_reward_models(trained, "both", ["july", "july-2"], where="here")
    folders = [trained.objects.path(models.find(n).digest) for n in ("july", "july-2", "both")]
    first, second, both = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    names = sorted(name for name in first if ".lora_A." in name)
    assert names
    for a in names:
        b = a.replace(".lora_A.", ".lora_B.")
        mean = (first[b] @ first[a] + second[b] @ second[a]) / 2
        assert torch.allclose(both[b] @ both[a], mean, atol=1e-6)
    scalings = [json.loads((f / "adapter_config.json").read_text()) for f in folders]
    assert {c["lora_alpha"] / c["r"] for c in scalings} == {2.0}
    heads = [load_file(folder / HEAD_FILE)["weight"] for folder in folders]
    assert torch.allclose(heads[2], (heads[0] + heads[1]) / 2)
    assert measured(trained, made)[trained.version("polite").digest].accuracy.value > 0.9
    assert average_reward_models(trained, "again", ["july-2", "july"], where="here") == made

    with pytest.raises(ConfigError, match="two reward models or more"):
        average_reward_models(trained, "one", ["july", "july"], where="here")
    train_reward_model(trained, "wide", chosen(training={"rank": 8, "epochs": 1}), where="here")
    with pytest.raises(PolicyError, match="adapters of one shape"):
        average_reward_models(trained, "unlike", ["july", "wide"], where="here")


def test_a_round_climbs_a_reward_model_named_by_its_digest(trained):
    online = {"objective": "grpo", "rewards": [{"by": "model:july"}], "steps": 10, "prompts": 2, "samples": 2,
              "max_new_tokens": 4, "guard": {"by": "model:august"}, "guard_window": 5}  # fmt: skip
    wanted = settings(version="polite", parent="base", online=online)
    exact, used = pinned(trained, wanted)
    july, august = (RewardModels(trained).find(n).digest for n in ("july", "august"))
    assert (exact.online.rewards[0].by, exact.online.guard.by) == (f"model:{july}", f"model:{august}")
    assert {ref.digest for ref in used} == {july, august}
    planned = trained.round(trained.plan(wanted))
    assert planned.digest == trained.round(trained.plan(exact)).digest
    outcome = planned.run(where="here", promote=False)
    assert outcome.child.digest
    both = online | {
        "rewards": [{"by": "model:latest"}],
        "guard": {"by": f"model:{RewardModels(trained).entries()[-1].name}"},
    }
    with pytest.raises(ConfigError, match="trained on as well"):
        trained.plan(settings(version="polite", parent="base", online=both))
    with pytest.raises(ConfigError, match="0 answer to it"):
        trained.plan(settings(version="polite", parent="base", online=online | {"rewards": [{"by": "model:nobody"}]}))


def test_answers_are_rewarded_as_pairs_were_trained_on(trained):
    record = RewardModels(trained).find("july")
    reward = assembly.reward_of(RewardModels(trained).ref(record), NumericsSettings())
    prompt = Prompt.of("tell me about tea moon")
    yes, no, empty = reward([Said(prompt, text, {}, finished=True) for text in ("yes please tea", "no tea", "")])
    assert yes > no
    assert math.isfinite(empty)
    # Of an answer to a prompt that is too long it reads the beginning.
    assert math.isfinite(*reward([Said(Prompt.of("tea " * 200), "yes", {}, finished=True)]))


def test_nothing_that_is_in_use_is_swept(trained):
    unused = trained.objects.stage()
    (unused / "x").write_text("nobody refers to it")
    gone = trained.objects.publish(unused)
    trained.gc(older_than_s=0)
    assert not trained.objects.path(gone).exists()
    for record in RewardModels(trained).entries():
        trained.objects.verify(record.digest)
        assert (trained.objects.path(record.digest) / HEAD_FILE).is_file()


def test_a_policy_is_no_reward_model_and_damage_is_told(trained, tmp_path):
    ref = RewardModels(trained).ref(RewardModels(trained).find("july"))
    shutil.copytree(ref.path, tmp_path / "bare")
    (tmp_path / "bare" / HEAD_FILE).unlink()
    with pytest.raises(PolicyError, match="no reward model"):
        RewardModel(ref._replace(path=str(tmp_path / "bare")), NumericsSettings())
    with pytest.raises(ValueError, match="adapter over a base"):
        RewardModelSettings.model_validate({"training": {"method": "full"}})


def test_the_verbs(model, tmp_path):
    ws = workspace(tmp_path / "ws", model)

    def run(*given):
        result = CliRunner().invoke(app, ["rewards", *given, "-w", str(ws.root)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "no reward models" in run()
    fast = [f"--set=training.{name}={value}" for name, value in FAST["training"].items()]
    told = json.loads(run("train", "july", "--version", "polite", *fast, "--json"))
    assert told["name"] == "july"
    assert told["measured"][ws.version("rude").digest]["accuracy"]["value"] == 0.0
    ws.store.add(entries(60, source="later", better="maybe", worse="well", seed=9))
    ws.freeze(name="later", rule=FreezeRule(sources=("later",)))
    assert " - " in run()
    assert " - " not in run("measure")
    shown = run("show", "july")
    assert "surer than right" in shown
    assert "later" in shown
