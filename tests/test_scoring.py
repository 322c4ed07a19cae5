"""The score cache: each example is computed at most once per policy, whatever is asked for afterwards."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from peft import PeftModel

from preference_data.versions import write_version
from tests.rounds_kit import SETTINGS, two_versions
from tests.tiny_model import build_tiny_model
from tests.training_kit import TRAINING, World
from workbench.config import NumericsSettings
from workbench.errors import PolicyError, StopRequested
from workbench.models import load
from workbench.models.forward import completion_logps
from workbench.models.load import Family, load_tokenizer
from workbench.models.score_table import FILE, read_table
from workbench.models.tokens import Encoded, encode_pair
from workbench.scoring import score as scoring
from workbench.scoring.score import score
from workbench.tasks import WHOLE, Part, ScoreJob, Tools, VersionRef

VERBS = tuple(Tools.__dataclass_fields__)


@pytest.fixture
def job(tmp_path):
    ws = two_versions(tmp_path / "ws", build_tiny_model(tmp_path / "model"))
    plan = ws.plan(SETTINGS)
    output = tmp_path / "out"
    output.mkdir()
    return ScoreJob(
        policy=plan.base,
        version=plan.version,
        splits=("train",),
        numerics=NumericsSettings(),
        max_length=128,
        batch_size=8,
        cache=ws.ledger_url,
        output=str(output),
    )


def computed(job):
    """How many sequences had to be computed."""
    seen = [0]

    def report(progress):
        seen.append(progress.total)
        return False

    score(job, report)
    return seen[-1]


def smaller(job, keep, directory):
    """The same version with its first `keep` training pairs only."""
    pairs = [p for p in _pairs(job) if p.split == "train"][:keep]
    version = write_version(pairs, directory, rule={}, watermark=0, head="")
    return replace(job, version=VersionRef(version.digest, str(version.path)))


def _pairs(job):
    from preference_data.versions import load_version

    return load_version(Path(job.version.path)).pairs()


def test_adding_pairs_scores_only_those_and_nothing_twice(job, tmp_path):
    pairs = [p for p in _pairs(job) if p.split == "train"]
    few = smaller(job, 5, tmp_path / "few")
    first = {text for p in pairs[:5] for text in ((p.prompt.key, p.chosen), (p.prompt.key, p.rejected))}
    every = {text for p in pairs for text in ((p.prompt.key, p.chosen), (p.prompt.key, p.rejected))}
    assert computed(few) == len(first)
    assert computed(job) == len(every) - len(first)
    assert computed(job) == 0
    assert len(read_table(Path(job.output))) == len(pairs)


@pytest.fixture
def adapters(tmp_path):
    """A family, and three adapters over its base that differ."""
    world = World(tmp_path / "world")
    made = [world.adapter(world.train(training=TRAINING.model_copy(update={"seed": k})), str(k)) for k in (1, 2, 3)]
    return Family(world.base), made


def said(family, policy):
    example = Encoded((1, 2, 3), (4, 5, 6))
    with family.using(policy) as model:
        return completion_logps(model, family.collate([example])).item()


def test_an_adapter_that_was_half_loaded_never_speaks(adapters, monkeypatch):
    family, (first, second, _) = adapters
    said(family, first)
    expected = said(Family(family.base), second)

    def half(self, path, adapter_name, **more):
        self.add_adapter(adapter_name, self.peft_config[next(iter(self.peft_config))])
        raise OSError("I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(PeftModel, "load_adapter", half)
        with pytest.raises(PolicyError, match="cannot load adapter 222222222222"):
            said(family, second)
    assert said(family, second) == expected


def test_adapters_not_used_for_long_are_let_go(adapters, monkeypatch):
    family, policies = adapters
    monkeypatch.setattr(load, "MOST_ADAPTERS", 2)
    before = [said(family, policy) for policy in policies]
    assert len(family._peft.peft_config) == 2
    assert [said(family, policy) for policy in policies] == before
    assert len(set(before)) == 3


def test_another_precision_is_scored_anew(job):
    computed(job)
    assert computed(replace(job, numerics=NumericsSettings(dtype="bfloat16"))) > 0


def test_another_length_limit_is_scored_anew_only_where_it_cuts(job):
    count = computed(job)
    assert computed(replace(job, max_length=127)) == 0
    tokenizer = load_tokenizer(job.policy.base_path)
    pairs = [encode_pair(tokenizer, p, max_length=128) for p in _pairs(job) if p.split == "train"]
    lengths = sorted(len(side.prompt) + len(side.completion) for both in pairs for side in both)
    limit = lengths[len(lengths) // 2]
    cut = {side for both in pairs for side in both if len(side.prompt) + len(side.completion) > limit}
    assert 0 < computed(replace(job, max_length=limit)) == len(cut) < count


def test_batch_size_changes_rounding_only(job, tmp_path):
    score(job, lambda _: False)
    one = read_table(Path(job.output))
    other_cache = replace(job, cache=f"sqlite:///{tmp_path / 'other.db'}", batch_size=1)
    score(other_cache, lambda _: False)
    for key, alone in read_table(Path(job.output)).items():
        assert alone[:2] == pytest.approx(one[key][:2], abs=1e-4)


def test_what_was_scored_before_a_stop_is_kept(job):
    with pytest.raises(StopRequested):
        score(job, lambda progress: progress.done >= 8)
    assert computed(job) <= computed(replace(job, cache=job.cache + ".fresh")) - 8


def test_parts_compute_together_what_the_whole_computes_alone(job, tmp_path):
    score(job, lambda _: False)
    alone = (Path(job.output) / FILE).read_bytes()
    shared = replace(job, cache=f"sqlite:///{tmp_path / 'shared.db'}")
    counts = [computed(replace(shared, part=Part(k, 3))) for k in (2, 0, 1)]
    (Path(job.output) / FILE).unlink()
    assert min(counts) > 0
    assert computed(shared) == 0
    assert (Path(job.output) / FILE).read_bytes() == alone


def test_what_was_scored_before_is_looked_up_without_the_model(job, monkeypatch):
    score(job, lambda _: False)
    expected = (Path(job.output) / FILE).read_bytes()
    (Path(job.output) / FILE).unlink()
    monkeypatch.setattr(scoring, "family_of", lambda *_: pytest.fail("the model was loaded"))
    assert scoring.missing(job) == 0
    score(job, lambda _: False)
    assert (Path(job.output) / FILE).read_bytes() == expected


def test_pairs_are_read_and_put_into_tokens_once_for_all_policies(job, monkeypatch):
    seen = []
    honest = scoring.encode_pair
    monkeypatch.setattr(scoring, "encode_pair", lambda *given, **more: seen.append(1) or honest(*given, **more))
    for policy in ("1", "2", "3"):
        score(replace(job, policy=job.policy._replace(digest=policy * 64)), lambda _: False)
    assert len(seen) == len([p for p in _pairs(job) if p.split == "train"])
    score(replace(job, max_length=127), lambda _: False)
    assert len(seen) == 2 * len([p for p in _pairs(job) if p.split == "train"])


@pytest.fixture
def asked_of_workers(job, monkeypatch):
    """Scoring as on a cluster with six CPUs, done here; and the parts that were asked of workers."""
    from workbench.cluster import ray_tools

    asked = []
    monkeypatch.setattr(ray_tools.ray, "cluster_resources", lambda: {"CPU": 6})
    monkeypatch.setattr(ray_tools, "_Task", lambda _remote, verb, each, _options: (verb, each))

    def run(tasks, report):
        for verb, each in tasks:
            asked.append(each.part)
            Path(each.output).mkdir()
            verb(each, report)

    monkeypatch.setattr(ray_tools, "_run", run)
    options = ray_tools.RayOptions(pairs_per_worker=4)
    return ray_tools.ray_tools(
        SimpleNamespace(**dict.fromkeys(VERBS, score)), options, None, scoring.missing
    ).score, asked


def test_workers_share_what_is_missing_and_are_not_asked_for_what_is_known(job, tmp_path, asked_of_workers):
    run, asked = asked_of_workers
    pairs = [p for p in _pairs(job) if p.split == "train"]
    first = smaller(job, len(pairs) - 9, tmp_path / "few")
    score(first, lambda _: False)
    assert scoring.missing(job) == 9
    run(job, lambda _: False)
    assert asked == [Part(0, 2), Part(1, 2)]  # nine pairs, four and more for each
    assert len(read_table(Path(job.output))) == len(pairs)
    assert sorted(path.name for path in Path(job.output).iterdir()) == [FILE]
    asked.clear()
    run(job, lambda _: False)
    assert asked == []


def test_what_is_little_is_one_task(job, tmp_path, asked_of_workers):
    run, asked = asked_of_workers
    few = smaller(job, 3, tmp_path / "few")
    run(few, lambda _: False)
    assert asked == [WHOLE]
    assert len(read_table(Path(job.output))) == 3


@pytest.mark.ray
def test_workers_share_what_is_to_be_scored(job, tmp_path):
    """Two workers on Ray: the same bytes, and progress of all together."""
    from workbench.assembly import IN_PROCESS, missing, writer
    from workbench.cluster.ray_tools import RayOptions, cluster, ray_tools

    score(job, lambda _: False)
    alone = (Path(job.output) / FILE).read_bytes()
    shared, seen = replace(job, cache=f"sqlite:///{tmp_path / 'shared.db'}"), []
    options = RayOptions(pairs_per_worker=5)
    with cluster(options):
        ray_tools(IN_PROCESS, options, writer, missing).score(shared, lambda progress: seen.append(progress) and False)
    assert (Path(job.output) / FILE).read_bytes() == alone
    assert sorted(path.name for path in Path(job.output).iterdir()) == [FILE]
    pairs = [p for p in _pairs(job) if p.split == "train"]
    every = {text for p in pairs for text in ((p.prompt.key, p.chosen), (p.prompt.key, p.rejected))}
    assert max(progress.total for progress in seen) == len(every)
    assert max(progress.done for progress in seen) == len(every)
