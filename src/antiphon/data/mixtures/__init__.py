"""Mixtures of training pairs: which sets, how much of each, what the model is told, and the plan of an epoch.

Each set is a data set of its own in the trainer, so that every batch comes from one of them (sampling.py draws them).
"""

from antiphon.data.mixtures.mixing import Mixture, Part
from antiphon.data.mixtures.mixture_plan import MixturePlan, SetPlan, plan
from antiphon.data.mixtures.mixture_settings import PairSettings, read_settings, settings_of

__all__ = ["Mixture", "MixturePlan", "PairSettings", "Part", "SetPlan", "plan", "read_settings", "settings_of"]
