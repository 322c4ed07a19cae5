"""Jobs that train a tiny model in about a second."""

import dataclasses

from safetensors.torch import load_file

from preference_data.records import Pair, Prompt
from preference_data.versions import write_version
from tests.rounds_kit import WORDS
from tests.tiny_model import build_tiny_model
from workbench.config import NumericsSettings, ObjectiveSettings, TrainingSettings
from workbench.models.forward import collate, completion_logps
from workbench.models.load import Family
from workbench.models.score_table import PairScore, write_table
from workbench.models.tokens import encode_pair
from workbench.tasks import AGE, Anchor, PolicyRef, TrainJob, VersionRef
from workbench.training.optimise import optimise

TRAINING = TrainingSettings(
    rank=4, alpha=8, learning_rate=5e-3, batch_size=4, accumulation=2, max_length=64, checkpoint_every=2, epochs=2
)


def quiet(_):
    return False


class World:
    """A model, a version of 24 training pairs, and the base's scores of it."""

    def __init__(self, root, age=None):
        self.root = root
        self.model = build_tiny_model(root / "model")
        self.base = PolicyRef("b" * 64, "full", str(self.model), "b" * 64, str(self.model), "tok")
        answers = [(f"yes {w}", "no " * (1 + i % 3)) for i, w in enumerate(WORDS)]
        self.pairs = [
            Pair(
                Prompt.of(f"about {w} {i}{' or so' * (split == 'select')}"), *answers[i % len(answers)],
                (0.5, 1.0)[i % 2], None, (), {AGE: age(i)} if age else {}, split,
            )
            for split, n in (("train", 24), ("test", 6), ("select", 5))
            for i, w in enumerate((WORDS * 2)[:n])
        ]  # fmt: skip
        self.version = self.written(self.pairs)
        self.without_select = self.written([p for p in self.pairs if p.split != "select"])
        self.tables = {self.base.digest: self.table(self.base)}
        self._count = 0

    def written(self, pairs):
        version = write_version(pairs, self.root / "versions", rule={}, watermark=0, head="")
        return VersionRef(version.digest, str(version.path))

    def table(self, policy):
        family, scores = Family(policy), {}
        with family.using(policy) as model:
            for pair in self.pairs:
                both = encode_pair(family.tokenizer, pair, max_length=TRAINING.max_length)
                chosen, rejected = completion_logps(model, collate(both, pad_id=0)).tolist()
                scores[pair.key] = PairScore(
                    chosen, rejected, len(both.chosen.completion), len(both.rejected.completion)
                )
        folder = self.root / f"table-{policy.digest[:8]}"
        folder.mkdir(exist_ok=True)
        write_table(folder, scores)
        return str(folder)

    def job(self, **changes):
        self._count += 1
        folders = [self.root / f"{kind}-{self._count}" for kind in ("scratch", "output")]
        for folder in folders:
            folder.mkdir()
        job = TrainJob(
            parent=self.base,
            anchors=(Anchor(self.base, 1.0),),
            version=self.version,
            tables=self.tables,
            objective=ObjectiveSettings(),
            training=TRAINING,
            numerics=NumericsSettings(),
            scratch=str(folders[0]),
            output=str(folders[1]),
            plan="plan",
        )
        return dataclasses.replace(job, **changes)

    def train(self, report=quiet, **changes):
        job = self.job(**changes)
        optimise(job, report)
        return job.output

    def adapter(self, folder, name):
        """The trained adapter as a policy, its scores added to the tables."""
        policy = PolicyRef(name * 64, "adapter", folder, self.base.digest, str(self.model), "tok")
        self.tables[policy.digest] = self.table(policy)
        return policy


def weights(folder):
    return load_file(f"{folder}/adapter_model.safetensors")
