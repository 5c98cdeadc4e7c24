"""The options explain themselves, and the recipes say what the papers say."""

from __future__ import annotations

import importlib
import re

import pytest

from minicnn import models, schedules
from minicnn.data import augment
from minicnn.train import options
from minicnn.train.options import configuration, parser, recipe


def configured(*arguments: str):
    return configuration(parser().parse_args(arguments))


def test_help_says_what_each_option_is_and_its_default():
    shown = " ".join(parser().format_help().split())
    for text in (
        "a network's name; python -m minicnn.summary lists them (default: resnet-mini)",
        "passes over the training images (default: 15)",
        "base learning rate, which the schedule scales (default: 0.1)",
        "where arrays live (default: auto)",
        "the run's folder (default: a new one under runs/)",
    ):
        assert text in shown
    assert "(default: None)" not in shown and "(default: False) " not in re.sub("mean of all steps.*", "", shown)
    for action in parser()._actions:
        assert action.help and "\n" not in action.help


@pytest.mark.parametrize("model", models.names())
def test_every_network_has_a_default_recipe(model):
    config = configured(model)
    assert config["model"] == model
    schedules.parse(config["schedule"], config["epochs"])
    augment.parse(config["augment"])


@pytest.mark.parametrize("model", [name for name in models.names() if name != "resnet-mini"])
def test_every_network_of_a_paper_has_its_recipe(model):
    settings = recipe("paper", model)
    assert settings.keys() == options.BASE.keys()
    schedules.parse(settings["schedule"], settings["epochs"])
    augment.parse(settings["augment"])
    of_v3 = {"momentum": 0.0, "label_smoothing": 0.1, "rms_eps": 1.0, "clip": 2.0}
    others = {"momentum": 0.9, "label_smoothing": 0.0, "rms_eps": 1e-8, "clip": 0.0}
    expected = of_v3 if model == "inception-v3" else others
    assert not settings["nesterov"] and {key: settings[key] for key in expected} == expected


def rates(model: str, *epochs: float) -> list[float]:
    """The learning rate of a network's recipe after so many epochs."""
    settings = recipe("paper", model)
    schedule = schedules.parse(settings["schedule"], settings["epochs"])
    return [pytest.approx(settings["lr"] * schedule(epoch)) for epoch in epochs]


def test_the_recipes_of_the_papers():
    assert rates("resnet20", 0, 90.9, 91, 136.5, 181) == [0.1, 0.1, 0.01, 0.001, 0.001]
    assert rates("resnet110", 0.1, 1, 91) == [0.01, 0.1, 0.01]
    assert rates("googlenet", 0, 8, 80) == [0.01, 0.0096, 0.01 * 0.96**10]
    assert rates("vgg-d", 0) == [0.01] and rates("resnet50", 0) == [0.1]
    steps = {"resnet56": 64_000, "vgg16": 370_000, "resnet152": 600_000}
    images = {"resnet56": 45_000, "vgg16": 1_281_167, "resnet152": 1_281_167}
    for model, count in steps.items():
        settings = recipe("paper", model)
        assert settings["epochs"] * images[model] / settings["batch_size"] == pytest.approx(count, rel=0.01)


def test_what_is_given_wins_over_the_recipe():
    config = configured("resnet20", "--recipe", "paper", "--lr", "0.5", "--nesterov", "--validation", "0")
    assert (config["lr"], config["nesterov"], config["validation"], config["batch_size"]) == (0.5, True, 0.0, 128)


def test_nesterov_is_only_for_sgd():
    assert not configured("--optimizer", "adam")["nesterov"]


def test_the_configuration_does_not_depend_on_where_it_runs():
    assert configured("--threads", "1", "--device", "cpu", "--out", "x") == configured()


@pytest.mark.parametrize(
    "command", [("minicnn.train",), ("minicnn.evaluate", "RUN"), ("benchmarks", "step")], ids=lambda c: c[0]
)
@pytest.mark.parametrize(
    ("count", "message"),
    [("0", "must be above 0, got 0"), ("9999", "must be at most "), ("two", "invalid int value: 'two'")],
)
def test_threads_that_there_are_not(command, count, message, capsys):
    module, *arguments = command
    main = importlib.import_module(f"{module}.__main__").main
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--threads", count])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and f"argument --threads: {message}" in error
