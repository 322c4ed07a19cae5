"""The file of a loop: what it is, and a line for each thing that is settled in a turn, added when it is."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from preference_data.line_file import append_line, read_lines
from preference_data.records import digest
from workbench.config import LoopSettings
from workbench.errors import ConfigError
from workbench.places import Watch
from workbench.tasks import Progress
from workbench.workspace import Workspace

FOLDER = "loops"
MARK_EVERY_S = 60.0


class Turn(NamedTuple):
    """What came of one turn.

    Attributes:
        policy: digest of the policy that answered.
        judged: how many judgements, and how many of them ties.
        agreed: share of the new judgements the policy agreed with before it learned from them; None for none.
        rewarded: the same of the reward model of the turn before.
        spared: share of the comparisons that the proxy labelled; None without one.
        proxy_right: how often it is right where it is sure, on the random share that was judged all the same.
        chance_right: how often it would be right had it labelled at random.
        change: what the detector says of it.
        proposal: what to do about a change; empty where there is none.
        round, child, state: of the round.
    """

    number: int
    policy: str
    version: str
    judged: int
    ties: int
    agreed: float | None
    change: str
    proposal: str
    round: str
    child: str
    state: str
    seconds: float
    rewarded: float | None = None
    spared: float | None = None
    proxy_right: float | None = None
    chance_right: float | None = None


class Book:
    """A loop's file.

    Args:
        ws: the workspace it lies in.
        settings: its name, and what must stay the same.

    Raises:
        ConfigError: a loop of this name was begun with other prompts.
    """

    """The file of a loop: what it is, and each turn that is done."""

    def __init__(self, ws: Workspace, settings: LoopSettings) -> None:
        self.file = ws.root / FOLDER / settings.name / "book.jsonl"
        identity = digest([str(settings.prompts.resolve()), settings.prompts_per_turn])
        lines = read_lines(self.file)
        if not lines:
            append_line(self.file, {"loop": settings.name, "identity": identity})
        elif lines[0].get("identity") != identity:
            raise ConfigError(
                f"loop {settings.name!r} was begun with other prompts or prompts_per_turn, which say what a turn is; give them as "
                f"they were (all else may change), or choose another name; what it did is in {self.file}"
            )

    def turns(self) -> tuple[Turn, ...]:
        """All that are done."""
        return tuple(Turn(**line["done"]) for line in read_lines(self.file) if "done" in line)

    def policy(self, number: int) -> str | None:
        """Who answers in a turn that was begun."""
        return next((line["policy"] for line in read_lines(self.file) if line.get("begun") == number), None)

    def begin(self, number: int, policy: str, proxy: Mapping[str, Any]) -> None:
        """Settle who answers in a turn and what labels."""
        append_line(self.file, {"begun": number, "policy": policy, "proxy": proxy})

    def proxy(self, number: int) -> dict[str, Any]:
        """What labels in a turn that was begun, as settings; empty for nothing."""
        return next((line.get("proxy", {}) for line in read_lines(self.file) if line.get("begun") == number), {})

    def scored(self, number: int) -> dict[str, Any] | None:
        """What was found out before a turn's round, and the round's settings."""
        return next((line for line in reversed(read_lines(self.file)) if line.get("scored") == number), None)

    def score(self, number: int, **found: Any) -> None:
        """Settle what was found out before a turn's round; the last word counts."""
        append_line(self.file, {"scored": number, **found})

    def spend(self, number: int, seconds: float) -> None:
        """Add to the time a turn took."""
        append_line(self.file, {"spent": number, "seconds": seconds})

    def spent(self, number: int) -> float:
        """Seconds a turn took so far, those before it was killed included."""
        return sum(line["seconds"] for line in read_lines(self.file) if line.get("spent") == number)

    def end(self, turn: Turn) -> None:
        """Write down a turn that is done."""
        append_line(self.file, {"done": turn._asdict()})


class Clock:
    """Writes down what a turn took, every minute of its round, so that what a killed loop did is not forgotten.

    Args:
        book: the loop's.
        number: of the turn.
        clock: seconds.
        watch: told every progress.
    """

    def __init__(self, book: Book, number: int, clock: Callable[[], float], watch: Watch) -> None:
        self._book, self._number, self._clock, self._watch = book, number, clock, watch
        self._since = clock()

    def leave_out(self, seconds: float) -> None:
        """Time in which only people worked."""
        self._since += seconds

    def mark(self) -> None:
        """Write down what passed since the last time."""
        now = self._clock()
        self._book.spend(self._number, now - self._since)
        self._since = now

    def watch(self, progress: Progress) -> None:
        """Tell progress, and mark now and then."""
        self._watch(progress)
        if self._clock() - self._since >= MARK_EVERY_S:
            self.mark()
