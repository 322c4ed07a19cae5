"""Where everything of a workspace lies: its folder, databases, objects and lists, opened when first used."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field
from sqlalchemy import Engine

from preference_data.accounts import Accounts
from preference_data.database import CACHE_MIB
from preference_data.store import Store
from preference_data.version_list import VersionList
from workbench.config import (
    GenerateSettings,
    MachineSettings,
    NumericsSettings,
    RewardModelSettings,
    RoundSettings,
    Settings,
    read_settings,
)
from workbench.drift.ledger import Ledger
from workbench.errors import ConfigError, JournalError
from workbench.objects import Objects
from workbench.policies.registry import Registry
from workbench.rounds.journal import Journal
from workbench.rounds.run import Services
from workbench.schema import open_ledger
from workbench.tasks import Progress

CONFIG = "workbench.toml"
Computing = TypeVar("Computing", RoundSettings, GenerateSettings, RewardModelSettings)

Watch = Callable[[Progress], None]
"""Told every progress of a step."""


def silent(_: Progress) -> None:
    """Nobody watches."""


class AlertSettings(Settings):
    """Who is told when a round ends."""

    on: Literal["problems", "always"] = "problems"
    """Rejected, failed and stopped rounds alone, or promoted ones as well."""
    file: str = ""
    """Lines of JSON are added to this file, in the workspace unless its path is absolute."""
    webhook: str = Field(default="", pattern=r"^(https?://.*)?$")
    """Address that the same JSON is posted to."""
    near: float = Field(default=0.8, gt=0, le=1)
    """A loss or KL within its threshold is told of, too, from this share of it on."""


class WorkspaceSettings(Settings):
    """`workbench.toml` of a workspace."""

    base_name: str
    """What people call policy 0."""
    store: str = ""
    """Database URL of the preferences; empty for a SQLite file in the workspace."""
    ledger: str = ""
    """Database URL of rounds, policies, measurements and scores; empty for a SQLite file in the workspace."""
    report_to: tuple[Literal["trackio", "mlflow", "wandb", "tensorboard"], ...] = ()
    """Trackers that training reports to, each to be installed; empty for none, which sends nothing anywhere."""
    alerts: AlertSettings = AlertSettings()
    numerics: MachineSettings = MachineSettings()
    """Of rounds and all else that computes and does not say; `workbench init` measures what is fastest here."""


class Places:
    """A workspace folder and what is in it."""

    def __init__(self, root: Path, *, cache_mib: int = CACHE_MIB) -> None:
        """Open a workspace.

        Args:
            root: its folder.
            cache_mib: memory the ledger's database may keep pages in, per connection.

        Raises:
            ConfigError: the folder is none, or its settings are wrong.
        """
        self.root, self._cache_mib = root.absolute(), cache_mib
        if not (self.root / CONFIG).exists():
            raise ConfigError(f"{root}: no workspace here ({CONFIG} is missing); `workbench init {root}` makes one")
        self.settings = read_settings(self.root / CONFIG, WorkspaceSettings)
        self.versions = VersionList(self.root / "versions.jsonl", self.root / "versions")

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Hold the workspace, so that no second round or freeze runs in it meanwhile. A killed process lets go.

        Args:
            what: what is being done; told to whoever comes second.

        Raises:
            JournalError: another process holds it; says what it does and what to do.
        """
        with (self.root / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise JournalError(
                    f"{self.root}: {file.read() or 'another process'} in this workspace; wait for it to end, or stop "
                    "it (a round goes on when run again), then run the same command"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} is {what}")
            file.flush()
            yield

    @cached_property
    def store(self) -> Store:
        """What people said."""
        return Store.open(self.settings.store or f"sqlite:///{self.root / 'preferences.db'}")

    @property
    def accounts(self) -> Accounts:
        """Who may log in to the page."""
        return Accounts(self.store.engine)

    @property
    def ledger_url(self) -> str:
        """Database of rounds, policies, measurements and cached scores."""
        return self.settings.ledger or f"sqlite:///{self.root / 'ledger.db'}"

    @cached_property
    def engine(self) -> Engine:
        """The ledger database."""
        return open_ledger(self.ledger_url, cache_mib=self._cache_mib)

    @cached_property
    def objects(self) -> Objects:
        """Content-addressed folders: policies, scores, measurements."""
        return Objects(self.root)

    @cached_property
    def registry(self) -> Registry:
        """Policies and the champion."""
        return Registry(self.engine, self.objects)

    @cached_property
    def journal(self) -> Journal:
        """Rounds and their steps."""
        return Journal(self.engine, self.objects)

    @cached_property
    def ledger(self) -> Ledger:
        """Measurements, item by item."""
        return Ledger(self.engine)

    def services(self, watch: Watch = silent) -> Services:
        """Where a round keeps what it does."""
        return Services(
            journal=self.journal,
            objects=self.objects,
            registry=self.registry,
            ledger=self.ledger,
            cache=self.ledger_url,
            scratch=self.root / "scratch",
            watch=watch,
            report_to=self.settings.report_to,
        )

    @property
    def numerics(self) -> NumericsSettings:
        """Precision and threads of what computes without settings of its own."""
        return NumericsSettings(**self.settings.numerics.model_dump())

    def on_this_machine(self, settings: Computing) -> Computing:
        """Settings that say how to compute: what they leave out is the workspace's."""
        own = self.settings.numerics.model_dump(include=settings.numerics.left_out)
        return settings.model_copy(update={"numerics": settings.numerics.model_copy(update=own)})

    def rejects_of(self, path: Path) -> Path:
        """Where the refused rows of a file lie unless another place was given."""
        return self.root / "rejects" / f"{path.name}.jsonl"
