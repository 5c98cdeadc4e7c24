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
Row = dict[str, str]  # one epoch in metrics.csv


class Run:
    """One folder. `begin` makes it or finds it again; every file in it is replaced whole, never half-written."""

    def __init__(self, folder: str | Path | None, model: str):
        self.folder = Path(folder) if folder else _new_folder(model)

    def path(self, name: str) -> Path:
        return self.folder / name

    def begin(self, config: dict[str, Any], *, resume: bool = False, overwrite: bool = False) -> bool:
        """Prepare the folder for a run of `config`; True if there is a checkpoint to go on from.

        Raises ValueError where a run is there already and neither resume nor overwrite was asked for, or where the run
        that is there has another configuration.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: exists and is not a folder; choose another --out")
        holds_run = self.path("config.json").exists()
        if holds_run and not (resume or overwrite):
            raise ValueError(
                f"{self.folder}: holds a run already; go on with it by --resume, start anew by --overwrite"
            )
        if not holds_run and not overwrite and self.folder.exists() and any(map(_is_foreign, self.folder.iterdir())):
            raise ValueError(f"{self.folder}: holds files that are no run; choose another --out, or --overwrite")
        if self.goes_on(resume):
            self._check_same(self._read_json("config.json"), config)
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            self.path(name).unlink(missing_ok=True)
        self.write_config(config)
        return False

    def goes_on(self, resume: bool) -> bool:
        """Whether there is a checkpoint here that a run with this `resume` goes on from."""
        return resume and self.path("config.json").exists() and self.path("last.safetensors").exists()

    def _check_same(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Threads, device and logging are not part of the configuration, so they may change; of it, epochs may grow."""
        for key in {**old, **new}:
            if key == "epochs" and new["epochs"] < old["epochs"]:
                raise ValueError(f"{self.folder}: was begun with {old['epochs']} epochs; --epochs may only grow")
            if key != "epochs" and old.get(key) != new.get(key):
                raise ValueError(
                    f"{self.folder}: was begun with {key}={old.get(key)!r}, now it is {new.get(key)!r}; "
                    "resume with the same settings, or choose another --out"
                )

    def is_finished(self, epochs: int) -> bool:
        """Whether the run has ended after so many epochs."""
        return self.path("result.json").exists() and self._read_json("result.json").get("epochs") == epochs

    # What is written

    def write_config(self, config: dict[str, Any]) -> None:
        self._write_json("config.json", config)

    def read_metrics(self) -> list[Row]:
        path = self.path("metrics.csv")
        return list(csv.DictReader(io.StringIO(path.read_text("utf-8")))) if path.exists() else []

    def write_metrics(self, rows: list[Row]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        checkpoint.write_whole(self.path("metrics.csv"), text.getvalue().encode())

    def read_last(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        return checkpoint.read(self.path("last.safetensors"))

    def write_last(self, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        checkpoint.write(self.path("last.safetensors"), arrays, metadata)

    def write_best(self, weights: dict[str, Any], metadata: dict[str, str]) -> None:
        checkpoint.write(self.path("best.safetensors"), weights, metadata)

    def write_result(self, result: dict[str, Any]) -> None:
        self._write_json("result.json", result)

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads(self.path(name).read_text("utf-8"))
        except ValueError:
            raise ValueError(f"{self.path(name)}: is damaged; start anew with --overwrite") from None

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        checkpoint.write_whole(self.path(name), (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _is_foreign(path: Path) -> bool:
    """Whether a file is none of ours: neither a run's nor what a kill has left of writing one."""
    return path.name not in FILES and not any(path.name.startswith(f".{name}.") for name in FILES)


def _new_folder(model: str) -> Path:
    """runs/MODEL-DATE-TIME, with a number behind where that exists."""
    base = Path("runs") / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder
