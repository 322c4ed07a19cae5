"""Settings: frozen, strict, read from TOML.

An unknown key is an error that lists the known ones; bounds are checked here, before any model loads.
"""

from workbench.config.looping import JUDGES, JudgeSettings, LoopSettings, ProxySettings
from workbench.config.losses import (
    APPROXIMATE_LOSSES,
    BY_BATCH,
    EXACT_LOSSES,
    OF_ANSWERS,
    ObjectiveSettings,
    losses_elsewhere,
)
from workbench.config.methods import (
    AfterSettings,
    MergingSettings,
    MovingSettings,
    PenaltySettings,
    ReplaySettings,
    ScheduleSettings,
)
from workbench.config.online import AI, MODEL, GuardSettings, OnlineSettings, RewardSettings
from workbench.config.presets import METHODS, Method
from workbench.config.reward_models import RewardModelSettings
from workbench.config.rounds import (
    AnchorSettings,
    EvaluationSettings,
    GateSettings,
    GenerateSettings,
    Judged,
    MachineSettings,
    NumericsSettings,
    Rounded,
    RoundSettings,
    TrainingSettings,
    kl_terms,
)
from workbench.config.settings import Settings, read_settings, read_values, settings_from, values_of

__all__ = [
    "AI",
    "APPROXIMATE_LOSSES",
    "BY_BATCH",
    "EXACT_LOSSES",
    "JUDGES",
    "METHODS",
    "MODEL",
    "OF_ANSWERS",
    "AfterSettings",
    "AnchorSettings",
    "EvaluationSettings",
    "GateSettings",
    "GenerateSettings",
    "GuardSettings",
    "JudgeSettings",
    "Judged",
    "LoopSettings",
    "MachineSettings",
    "MergingSettings",
    "Method",
    "MovingSettings",
    "NumericsSettings",
    "ObjectiveSettings",
    "OnlineSettings",
    "PenaltySettings",
    "ProxySettings",
    "ReplaySettings",
    "RewardModelSettings",
    "RewardSettings",
    "RoundSettings",
    "Rounded",
    "ScheduleSettings",
    "Settings",
    "TrainingSettings",
    "kl_terms",
    "losses_elsewhere",
    "read_settings",
    "read_values",
    "settings_from",
    "values_of",
]
