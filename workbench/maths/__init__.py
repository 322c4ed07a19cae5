"""Pure tensor functions: log-probabilities, preference losses, divergences, anchors. Tensors in, tensors out."""

from workbench.maths.anchors import Weighted, geometric_reference
from workbench.maths.answer_losses import kto, kto_logit
from workbench.maths.divergences import kl_per_position, kl_to_each
from workbench.maths.pairs import PairLogps, require_same_shape
from workbench.maths.policy_losses import importance, left_out, scaled, soft_preference
from workbench.maths.preference_losses import LOSSES, PairLoss, loss_named
from workbench.maths.updates import between, essential, short_to_long, slerp

__all__ = [
    "LOSSES",
    "PairLogps",
    "PairLoss",
    "Weighted",
    "between",
    "essential",
    "geometric_reference",
    "importance",
    "kl_per_position",
    "kl_to_each",
    "kto",
    "kto_logit",
    "left_out",
    "loss_named",
    "require_same_shape",
    "scaled",
    "short_to_long",
    "slerp",
    "soft_preference",
]
