"""The confined process of `flows.catalog.soundness`: `python -m flows.catalog.soundness_probe ROOT RESULT`.

Loads the version in folder ROOT with the very loader that serves, asks it once, and writes what it found.
"""

import sys
from pathlib import Path

from flows.catalog.soundness import FINDINGS, Finding
from serving.core.errors import ArtifactRefused
from serving.formats.artifact import inspect_artifact, payload_digest
from serving.formats.loader import import_adapter
from serving.formats.selftest import Verdict, self_test


def probe(root: Path) -> Finding:
    """What is wrong with the version in a folder, or what it answered."""
    try:
        artifact = inspect_artifact(root)
        model = import_adapter(artifact.format).load(artifact, 1)
    except ArtifactRefused as refused:
        return Finding(str(refused), "")
    tested = self_test(model, artifact)
    problem = tested.reason if tested.verdict is Verdict.FAILED else None
    return Finding(problem, tested.reason, payload_digest(root), tuple(model.inputs), tuple(model.outputs))


def main() -> None:
    root, result = map(Path, sys.argv[1:])
    result.write_bytes(FINDINGS.dump_json(probe(root)))


if __name__ == "__main__":
    main()
