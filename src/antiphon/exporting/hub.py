"""The form `hub`: what the model is, whole, with its module file and a card, for `trust_remote_code=True`."""

from __future__ import annotations

import json
from pathlib import Path

from sentence_transformers import SentenceTransformer

from antiphon.errors import CheckpointError
from antiphon.exporting import bundle
from antiphon.exporting.readings import readings
from antiphon.exporting.stock_files import NORMALIZE
from antiphon.exporting.verified import Call, FormSettings, by_prompts
from antiphon.model.checkpoint import save
from antiphon.modules import MODULES
from antiphon.training.card_usage import use_sections
from antiphon.training.model_card import write_card


def write(model: SentenceTransformer, folder: Path, settings: FormSettings) -> dict[str, Call]:
    """Write the folder; a model of stock modules needs no module file and gets none."""
    try:
        save(model, folder)
    except (CheckpointError, ValueError):  # no causal language model, or its head is gone: the embedder is whole
        model.save(str(folder), create_model_card=False)
    file = folder / "modules.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    own = [entry for entry in entries if entry["type"] in MODULES]
    for entry in own:
        entry["type"] = bundle.CLASSES[MODULES[entry["type"]]]
    if not entries[-1]["type"].endswith(".Normalize"):
        number = len(entries)
        (folder / f"{number}_Normalize").mkdir()
        entries.append({"idx": number, "name": str(number), "path": f"{number}_Normalize", "type": NORMALIZE})
    file.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    if own:
        (folder / f"{bundle.FILE}.py").write_text(bundle.source(), encoding="utf-8")
    write_card(folder, model, settings.source, use_sections("hub with code" if own else "hub", folder))
    return by_prompts(folder, readings(model), trust=bool(own))
