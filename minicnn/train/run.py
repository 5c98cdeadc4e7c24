"""The run folder: config.json, metrics.csv, last.safetensors, best.safetensors, result.json."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import checkpoint

FILES = ("config.json", "metrics.csv", "last.safetensors", "best.safetensors", "result.json")
MAY_CHANGE = ("epochs",)  # on resume; threads, device and logging are not part of the configuration


class Run:
    """One folder. `begin` makes it or finds it again; everything in it is replaced whole, never half-written."""

    def __init__(self, folder: str | Path | None, model: str):
        self.folder = Path(folder) if folder else _new_folder(model)

    def path(self, name: str) -> Path:
        return self.folder / name

    def begin(self, config: dict[str, Any], *, resume: bool, overwrite: bool) -> bool:
        """Prepare the folder for a run of `config`; True if there is a checkpoint to go on from.

        Raises ValueError where a run is there already and neither resume nor overwrite was asked for, or where the run
        that is there has another configuration.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: exists and is not a folder; choose another --out")
        old = self._config()
        if old is not None and not (resume or overwrite):
            raise ValueError(
                f"{self.folder}: holds a run already; go on with it by --resume, or start anew by --overwrite"
            )
        if old is not None and resume and self.path("last.safetensors").exists():
            self._check_same(old, config)
            self._write_json("config.json", config)
            return True
        if old is None and self.folder.exists() and any(self.folder.iterdir()) and not overwrite:
            raise ValueError(f"{self.folder}: holds files that are no run; choose another --out, or --overwrite")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            self.path(name).unlink(missing_ok=True)
        self._write_json("config.json", config)
        return False

    def _config(self) -> dict[str, Any] | None:
        path = self.path("config.json")
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError:
            raise ValueError(f"{path}: is damaged; start anew with --overwrite, or choose another --out") from None

    def _check_same(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        for key in [*old, *(key for key in new if key not in old)]:
            if key == "epochs" and new["epochs"] < old["epochs"]:
                raise ValueError(f"{self.folder}: was trained for {old['epochs']} epochs; --epochs may only grow")
            if key not in MAY_CHANGE and old.get(key) != new.get(key):
                raise ValueError(
                    f"{self.folder}: was begun with {key}={old.get(key)!r}, now it is {new.get(key)!r}; "
                    "resume with the same settings, or choose another --out"
                )

    # Metrics: one row an epoch

    def metrics(self) -> list[dict[str, str]]:
        path = self.path("metrics.csv")
        return list(csv.DictReader(io.StringIO(path.read_text()))) if path.exists() else []

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        checkpoint.write_whole(self.path("metrics.csv"), text.getvalue().encode())

    # Checkpoints

    def write_last(self, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        checkpoint.write(self.path("last.safetensors"), arrays, metadata)

    def write_best(self, weights: dict[str, Any], metadata: dict[str, str]) -> None:
        checkpoint.write(self.path("best.safetensors"), weights, metadata)

    def read_last(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        return checkpoint.read(self.path("last.safetensors"))

    def write_result(self, result: dict[str, Any]) -> None:
        self._write_json("result.json", result)

    def result(self) -> dict[str, Any] | None:
        path = self.path("result.json")
        return json.loads(path.read_text()) if path.exists() else None

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        checkpoint.write_whole(self.path(name), (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _new_folder(model: str) -> Path:
    """runs/MODEL-DATE-TIME, with a number behind where that exists."""
    base = Path("runs") / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder
