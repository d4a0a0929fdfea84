"""MLflow: a run of the experiment `segadapt` (or MLFLOW_EXPERIMENT_NAME), in the store at MLFLOW_TRACKING_URI.

Without that variable it is in MLflow's default, `mlflow.db` in the current folder. The run is found again by its id and
its store, whatever folder the command is resumed from.
"""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from segadapt.tracking.tracker import (
    KINDS,
    PREFIXES,
    Identity,
    Kind,
    Line,
    Pictures,
    Subject,
    numbers,
    plain_name,
    step_of,
)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is reported about a training

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.WARNING)  # the tables that it creates are of no interest

EXPERIMENT = "segadapt"
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 500
"""Limits of MLflow: metrics in one request, and characters of a parameter."""


class Mlflow:
    """The metrics of a batch of lines are one request, which MLflow's stores accept entirely or not at all."""

    def __init__(self, subject: Subject, known: Identity | None, from_step: int) -> None:
        uri = known["uri"] if known else mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        run: Any = self._again(known["run"]) if known else None
        self._run: Any = self._begin(subject) if run is None else run
        self._id: str = self._run.info.run_id
        self.identity: Identity = {"uri": uri, "run": self._id}
        self.reached: dict[Kind, int] = {kind: self._last(kind) for kind in KINDS}

    def _again(self, run: str) -> Any:
        """The run, or None if it has been deleted."""
        try:
            found = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if found.info.lifecycle_stage == "deleted":
            return None
        self._client.update_run(run, status="RUNNING")
        return found

    def _begin(self, subject: Subject) -> Any:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        run = self._client.create_run(number, run_name=subject.name, tags={"segadapt.folder": str(subject.folder)})
        given = [Param(plain_name(key), str(value)[:LONGEST]) for key, value in subject.parameters.items()]
        for first in range(0, len(given), MOST_PARAMETERS):
            self._client.log_batch(run.info.run_id, params=given[first : first + MOST_PARAMETERS])
        self._client.log_text(run.info.run_id, subject.recipe, "recipe.yaml")
        return run

    def _last(self, kind: Kind) -> int:
        if kind == "pictures":
            names = (file.path for file in self._client.list_artifacts(self._id, "images"))
            return max((int(step) for name in names for step in re.findall(r"[+%]step[+%](\d+)", name)), default=0)
        # One of them is enough: a line is sent as a whole.
        named = [key for key in self._run.data.metrics if key.startswith(PREFIXES[kind])]
        history = self._client.get_metric_history(self._id, named[0]) if named else []
        return max((metric.step for metric in history), default=0)

    def lines(self, lines: Sequence[Line]) -> None:
        now = int(time.time() * 1000)
        waiting: list[Metric] = []
        for line in lines:
            own = [Metric(name, value, now, step_of(line)) for name, value in numbers(line).items()]
            if len(waiting) + len(own) > MOST_METRICS:
                self._client.log_batch(self._id, metrics=waiting)
                waiting = []
            waiting += own
        if waiting:
            self._client.log_batch(self._id, metrics=waiting)

    def pictures(self, step: int, pictures: Pictures) -> None:
        for name, picture in pictures.items():
            self._client.log_image(self._id, picture, key=name, step=step)

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        self.lines([{"step": step, **{plain_name(name): score for name, score in scores.items()}}])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
