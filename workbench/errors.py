"""Errors of the workbench.

Every message says what was given, what was expected and what to do next. The classes take the message alone, so
that they can be pickled and cross process borders unchanged::

    WorkbenchError
    ├── ConfigError        a setting is unknown, out of bounds or contradicts another; raised before any model loads
    ├── ModelError         a model folder is missing, incomplete or unsafe
    ├── PolicyError        a policy is unknown, damaged or sits on another base
    ├── WiringError        a round would not train what its plan says
    ├── NumericsError      a loss, gradient or weight is not finite
    ├── ArtifactError      a published folder is damaged, or cannot be written
    ├── JournalError       a round's record contradicts itself or belongs to somebody else
    ├── StopRequested      somebody asked the round to stop; running it again goes on
    └── WorkerError        a Ray worker was lost more often than allowed
"""


class WorkbenchError(Exception):
    """Anything the workbench refuses or cannot do."""


class ConfigError(WorkbenchError, ValueError):
    """A setting is unknown, out of bounds or contradicts another."""


class ModelError(WorkbenchError):
    """A model folder is missing, incomplete or unsafe."""


class PolicyError(WorkbenchError):
    """A policy is unknown, damaged or sits on another base."""


class WiringError(WorkbenchError):
    """A round would not train what its plan says."""


class NumericsError(WorkbenchError, ArithmeticError):
    """A loss, gradient or weight is not finite."""


class RewardError(WorkbenchError):
    """A reward failed, or answered something that is no finite number."""


class JudgeError(WorkbenchError):
    """A machine that judges failed, answers nonsense, or does not agree with people."""


class GuardError(WorkbenchError):
    """A reward that is not trained on fell while the trained one rose."""


class ArtifactError(WorkbenchError):
    """A published folder is damaged, or cannot be written."""


class JournalError(WorkbenchError):
    """A round's record contradicts itself or belongs to somebody else."""


class StopRequested(WorkbenchError):  # noqa: N818 - a request, not a fault
    """Somebody asked the round to stop; running it again goes on."""


class WorkerError(WorkbenchError):
    """A Ray worker was lost more often than allowed."""
