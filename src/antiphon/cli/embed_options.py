"""The groups of options of embed: the plan, and the engine, which evaluate has too."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from antiphon.cli.option_groups import OptionGroup, in_panel
from antiphon.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.corpus.embedding_plan import Sizing
    from antiphon.corpus.ray_cluster import RaySettings


def _sizing(given: dict[str, Any]) -> Sizing | None:
    if not given.pop("plan", False):
        if given:
            raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is for --plan; add it, or leave both out.")
        return None
    from antiphon.corpus.embedding_plan import Sizing

    return Sizing(**given)


_sizing_option = in_panel("The plan")
PLAN_GROUP = OptionGroup(
    "sizing",
    {
        "plan": (bool | None, _sizing_option("Embed nothing: print hours, workers, storage and dollars.", "--plan")),
        "passages": (int | None, _sizing_option("How many there are; counted in SOURCE without it.")),
        "tokens": (float | None, _sizing_option("Of a passage; counted on passages of SOURCE without it.")),
        "tokens_per_second": (float | None, _sizing_option("Of one worker; measured here on SOURCE without it.")),
        "price": (float | None, _sizing_option("Dollars an hour of that worker.")),
        "within": (float | None, _sizing_option("Hours in which all is to be done; 24 without it.")),
    },
    _sizing,
)


class EngineOption(StrEnum):
    """What runs the job."""

    local = "local"
    ray = "ray"


def _engine(given: dict[str, Any]) -> Literal["local"] | RaySettings:
    if given.pop("engine", EngineOption.local) is EngineOption.local:
        if given:
            raise ConfigError("--ray-address, --workers and --cores are for --engine ray; add it, or leave them out.")
        return "local"
    from antiphon.corpus.ray_cluster import RaySettings

    return RaySettings(address=given.pop("ray_address", None), **given)


_engine_option = in_panel("The engine")
ENGINE_GROUP = OptionGroup(
    "engine",
    {
        "engine": (EngineOption | None, _engine_option("local, this process, or ray, Ray's workers, to the same end.")),
        "ray_address": (str | None, _engine_option("Of a Ray cluster; without it Ray is started here for the run.")),
        "workers": (int | None, _engine_option("With a model each; one a GPU, else one for so many cores.")),
        "cores": (int | None, _engine_option("Of a worker without a GPU; 1 without it.")),
    },
    _engine,
)
