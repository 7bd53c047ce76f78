"""Model folders of Signalbox's own flavours, logged to MLflow; run inside a training process.

MLflow has no `log_model` for them, so the folder is handed over as it is, described by MLflow's classes.
"""

from pathlib import Path
from typing import Any


def log_folder(folder: Path, flavor: str, **entries: str) -> Any:
    """Log a folder with `MLmodel` written for it; what `log_model` returns, as far as it is used here."""
    import mlflow
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    client = mlflow.MlflowClient()
    run = mlflow.active_run()
    made = client.create_logged_model(run.info.experiment_id, "model", source_run_id=run.info.run_id)
    described = Model(model_id=made.model_id, run_id=run.info.run_id)
    mlflow.pyfunc.add_to_model(described, loader_module="serving.formats.pyfunc")
    described.add_flavor(flavor, **entries)
    described.save(folder / "MLmodel")
    client.log_model_artifacts(made.model_id, str(folder))
    return client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
