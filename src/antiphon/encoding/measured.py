"""What was measured on this machine before, in the user's cache, so that it is measured once."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from typing import Any

import torch

from antiphon.encoding.processor import described
from antiphon.files import cache_folder, keep

logger = logging.getLogger(__name__)


class Measured:
    """Figures of one kind (a folder of the cache) for what `parts` say, this device, its threads and PyTorch."""

    def __init__(self, kind: str, parts: Mapping[str, Any], device: torch.device) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        whole = {**parts, "device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        self.path = cache_folder() / kind / f"{digest}.json"

    def known(self) -> dict[str, float] | None:
        """Return what was measured before, None where nothing was or it cannot be read."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(name): float(figure) for name, figure in found.items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.info("%s cannot be read (%s); it is measured again.", self.path, error)
            return None

    def keep(self, figures: Mapping[str, float]) -> None:
        """Keep what was measured; a cache that cannot be written is no fault."""
        keep(self.path, json.dumps(dict(figures)).encode())


def shape_of(config: Any, *names: str) -> dict[str, Any]:
    """Return these numbers of a model's configuration, None for one that it has not."""
    return {name: getattr(config, name, None) for name in ("model_type", *names)}


def _processor() -> str:
    """Return the processor's name and what PyTorch uses of it."""
    return f"{described('model name') or platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
