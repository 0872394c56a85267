"""Record a run with Weights & Biases, on its server or in files of the workdir."""

import os
import pathlib
import uuid
from collections.abc import Mapping, Sequence

from trainer import storage
from trainer.errors import ConfigError
from trainer.tracking.tracker import Row, RunStart

# By default the client sends its own errors to its makers.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

_PROJECT = "humerus"


def open_run(run_start: RunStart) -> "WandbRun":
    """Start a run, or continue an earlier one.

    The client's own variables apply: `WANDB_PROJECT` (by default `humerus`), `WANDB_API_KEY`,
    `WANDB_BASE_URL`, and `WANDB_MODE=offline`, with which the record is `wandb/` in the workdir.
    """
    remote = storage.is_remote(run_start.workdir)
    if remote and os.environ.get("WANDB_MODE") == "offline":
        raise ConfigError(
            "--track=wandb: files of the offline mode can't lie in a bucket; use a local --workdir,"
            " or unset WANDB_MODE"
        )
    if not remote:
        files = pathlib.Path(run_start.workdir).absolute() / "wandb"
        files.mkdir(parents=True, exist_ok=True)
        # Otherwise the client keeps copies of the artifact in the home folder.
        os.environ.setdefault("WANDB_DATA_DIR", str(files / "data"))
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=run_start.run_id or uuid.uuid4().hex[:8],
        resume="allow",
        name=run_start.name,
        dir=None if remote else run_start.workdir,
        config=dict(run_start.settings),
        # Neither this program's source nor its surroundings belong in the record.
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
    return WandbRun(run)


class WandbRun:
    """A run of Weights & Biases; see `tracker.Client`."""

    def __init__(self, run: "wandb.Run"):
        self._run = run
        self.run_id: str = run.id
        self._defined: set[str] = set()

    def log_rows(self, rows: Sequence[Row], prefix: str) -> None:
        if prefix not in self._defined:
            self._defined.add(prefix)
            for name in rows[0]:
                self._run.define_metric(f"{prefix}{name}", step_metric=f"{prefix}epoch")
        for row in rows:
            self._run.log({f"{prefix}{name}": value for name, value in row.items()})

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self._run.summary.update(dict(metrics))

    def log_files(self, folder: pathlib.Path, model_id: str) -> None:
        self._run.log({"report": wandb.Html(str(folder / "report.html"), inject=False)})
        model = wandb.Artifact(f"artifact-{model_id}", "model")
        model.add_dir(str(folder / "artifact"), skip_cache=True)
        model.add_file(str(folder / "curves.png"), skip_cache=True)
        logged = self._run.log_artifact(model)
        if not self._run.offline:
            logged.wait()  # the folder may be a copy that is removed after this

    def close(self, state: str) -> None:
        self._run.finish(exit_code=0 if state == "finished" else 1)
