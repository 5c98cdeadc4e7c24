"""A study from its arms to its pages: whole, killed and resumed, with what is missing."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from minicnn.study import claims, engine, report, training
from minicnn.study.__main__ import main
from minicnn.study.statistics import FAILS, HOLDS, UNDECIDED
from minicnn.study.training import Training
from minicnn.train.trainer import NotFinite, Trainer


def results(folder):
    """{file name: what is in it}, without how long it took."""
    found = {path.name: json.loads(path.read_text("utf-8")) for path in (folder / "results").iterdir()}
    for content in found.values():
        for figure in ("seconds", "images_per_second"):
            content["figures"].pop(figure, None)
    return found


def test_a_claim_from_end_to_end(tmp_path, capsys):
    """On the bundled images, at the scale that CI runs."""
    out = tmp_path / "out"
    assert main(["projections", "--scale", "tiny", "--seeds", "2", "--out", str(out)]) == 0
    assert len(results(out)) == 6

    text = (out / "11-projections.md").read_text("utf-8")
    summary = json.loads((out / "11-projections.json").read_text("utf-8"))
    assert summary["verdict"] in (HOLDS, FAILS, UNDECIDED) and summary["seeds"] == 2
    assert "25.03, 24.52, 24.19 %" in text and "python -m minicnn.study projections --scale tiny --seeds 2" in text
    pictures = list(out.glob("*.svg"))
    assert pictures and all(f"]({picture.name})" in text for picture in pictures)
    for picture in pictures:
        ElementTree.parse(picture)
    html = (out / "11-projections.html").read_text("utf-8")
    assert len(ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>")).findall(".//figure")) == len(pictures)
    index = (out / "index.md").read_text("utf-8")
    assert "[11. Projection shortcuts help a little](11-projections.md)" in index and summary["verdict"] in index
    assert "left" in capsys.readouterr().out


@pytest.fixture
def stop_after(monkeypatch):
    """`stop_after(n)`: Ctrl-C is pressed in the arm after the n-th; returns the list of arms that were begun."""
    run = Training.run

    def arm(n: int) -> list:
        begun: list = []

        def counted(self, bench, seed, progress):
            begun.append((self.variant, seed))
            if len(begun) > n:
                raise KeyboardInterrupt
            return run(self, bench, seed, progress)

        monkeypatch.setattr(Training, "run", counted)
        return begun

    return arm


def test_a_stopped_study_goes_on(study, tmp_path, stop_after, capsys):
    assert study("projections", "--seeds", 2) == 0
    whole = results(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")

    stop_after(2)
    assert study("projections", "--seeds", 2) == 130
    assert "finished arms are kept" in capsys.readouterr().err
    assert len(results(tmp_path / "out")) == 2
    begun = stop_after(100)
    assert study("projections", "--seeds", 2) == 0
    assert len(begun) == 4, "finished arms are not done again"
    assert results(tmp_path / "out") == whole


def test_a_killed_study_goes_on(images, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minicnn.study", "projections", "--data", f"bundled={images}", "--out", str(out)]
    killed = subprocess.Popen([*command, "--seeds", "200"], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while len(list((out / "results").glob("*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}
    assert before and all(json.loads(path.read_text("utf-8")) for path in before)

    seeds = max(int(path.stem.rpartition("seed")[2]) for path in before) + 1
    subprocess.run([*command, "--seeds", str(seeds)], stdout=subprocess.DEVNULL, check=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((out / "results").glob("*.json"))) == 3 * seeds
    assert not list((out / "unfinished").iterdir())


def test_claims_share_the_arms_that_they_have_in_common(study, stop_after):
    begun = stop_after(100)
    assert study("depth-degradation", "--seeds", 1) == 0
    assert len(begun) == 4
    assert study("residual-responses", "--seeds", 1) == 0
    assert len(begun) == 4


def test_a_counted_claim_is_decided_by_its_counts(tmp_path):
    assert main(["reductions", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "07-reductions.json").read_text("utf-8"))
    assert summary["verdict"] == HOLDS
    result = json.loads(next((tmp_path / "results").iterdir()).read_text("utf-8"))
    assert result["figures"]["billions"] == pytest.approx(1.583, abs=5e-4)
    table = result["figures"]["tables"][0]["rows"]
    assert [row[1].split()[0] for row in table[:2]] == ["163,328", "388,096"]


def test_a_statement_that_no_experiment_settles_has_a_page(tmp_path):
    assert main(["beyond-humans", "--out", str(tmp_path)]) == 0
    assert "no experiment settles" in (tmp_path / "20-beyond-humans.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["depth-degredation"], "did you mean depth-degradation"),
        (["99"], "--list"),
        ([], "--list"),
        (["1", "--scale", "paper"], "--data imagenet=FOLDER"),
        (["1", "--data", "imagenet"], "NAME=PLACE"),
        (["1", "--data", "bundled=nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_input_gets_one_line(arguments, says, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_data_that_are_missing_get_the_command_that_gets_them(tmp_path, capsys, monkeypatch):
    from minicnn.data import registry

    monkeypatch.setattr(registry, "cache_folder", lambda: tmp_path / "nothing")
    engine._images.cache_clear()
    assert main(["depth-degradation", "--scale", "small", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "python -m minicnn.data get fashion-mnist" in error and "--data fashion-mnist=FOLDER" in error
    assert error.count("\n") == 1


def test_a_damaged_result_is_named(study, tmp_path, capsys):
    assert study("projections", "--seeds", 1) == 0
    path = next((tmp_path / "out" / "results").iterdir())
    path.write_text("{")
    assert study("projections", "--seeds", 1) == 2
    assert f"{path}: is damaged; delete it" in capsys.readouterr().err


def test_an_arm_that_is_stopped_goes_on_where_it_was(study, tmp_path, monkeypatch):
    """With checkpoints, as longer arms have them: the curves are whole, and the numbers the same."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    assert study("projections", "--seeds", 1) == 0
    whole = results(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")

    step, steps = Trainer.step, []

    def stopped(self, images, labels):
        steps.append(len(labels))
        if len(steps) == 3:  # in the second epoch
            raise KeyboardInterrupt
        return step(self, images, labels)

    monkeypatch.setattr(Trainer, "step", stopped)
    assert study("projections", "--seeds", 1) == 130
    assert study("projections", "--seeds", 1) == 0
    assert len(steps) == 3 + 2 + 2 * 4
    assert results(tmp_path / "out") == whole


def test_a_training_that_diverges_is_no_better_than_chance(study, tmp_path, monkeypatch):
    def diverged(self, images, labels):
        raise NotFinite("the loss is nan at step 1")

    monkeypatch.setattr(Trainer, "step", diverged)
    assert study("projections", "--seeds", 1) == 0
    assert all(content["figures"]["test_error"] == 50 for content in results(tmp_path / "out").values())
    assert "diverged: the loss is nan at step 1" in (tmp_path / "out" / "11-projections.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("scale", "verdict", "published", "against"),
    [
        ("small", FAILS, HOLDS, True),
        ("small", UNDECIDED, HOLDS, False),
        ("small", HOLDS, HOLDS, False),
        ("small", FAILS, "not measured", False),
        ("tiny", FAILS, HOLDS, False),
    ],
)
def test_what_contradicts_the_papers(tmp_path, scale, verdict, published, against):
    claim = dataclasses.replace(claims.find("10")[0], published_verdict=published)
    study = engine.Study(claim, scale, 3, engine.Bench(claim.scales[scale], "cpu", tmp_path, {}))
    assert report.contradicts(verdict, study) is against
