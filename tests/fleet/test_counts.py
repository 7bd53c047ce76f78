"""The workers' counters in files: sums over the living and the dead, in a bounded number of files."""

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from serving.fleet.counts import forget_gauges, join_dead

# A worker's life: counts, measures, and tells the sums of all before it ends.
WORKER = """
import sys
from pathlib import Path
from serving.core.model import VersionRef
from serving.telemetry.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.answered(VersionRef("m", "1"), "champion", "ok", 0.003)
metrics.resident_bytes.set(5)
print(metrics.exposition().decode())
"""


def live(folder: Path) -> dict[str, float]:
    """What the next worker tells."""
    run = subprocess.run(
        [sys.executable, "-c", WORKER, str(folder)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    samples = [s for f in text_string_to_metric_families(run.stdout) for s in f.samples]
    return {s.name + s.labels.get("le", ""): s.value for s in samples}


def test_counts_outlive_workers_when_their_files_are_joined(tmp_path: Path) -> None:
    """Measures do not; joining changes no sum, and bounds the number of files."""
    for number in range(1, 11):
        told = live(tmp_path)
        assert told["signalbox_inference_requests_total"] == number
        assert told["signalbox_inference_duration_seconds_bucket0.005"] == number
        assert told["signalbox_resident_bytes"] == 5
        for file in tmp_path.glob("gauge_*.db"):
            forget_gauges(tmp_path, int(file.stem.rpartition("_")[2]))
    assert len(list(tmp_path.glob("counter_*.db"))) == 10
    join_dead(tmp_path, living=())
    assert sorted(file.name for file in tmp_path.glob("*.db")) == ["counter_0.db", "histogram_0.db"]
    told = live(tmp_path)
    assert told["signalbox_inference_requests_total"] == 11
    assert told["signalbox_inference_duration_seconds_count"] == 11
