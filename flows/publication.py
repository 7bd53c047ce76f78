"""How the flows name what they publish in Prefect."""

import re


def artifact_key(noun: str, model: str) -> str:
    """`noun` and the model's name in the lower-case letters, digits and dashes that Prefect allows."""
    name = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"
    return f"{noun}-{name}"
