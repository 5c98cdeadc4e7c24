"""How good a trained network is: `python -m minicnn.evaluate`.

weights    the network of a run folder or weights file
centre     what it makes of the centre of each image: accuracy, loss, logits
views      how the papers looked at an image when they tested: ten crops, 144, a grid, all of it
average    what a network makes of all the views of each image
precise    exact statistics for batch normalisation
accuracy   right or wrong: top-k with its interval, classes, confusions
"""

from minicnn.evaluate.accuracy import report, top, wilson
from minicnn.evaluate.average import dense, scores
from minicnn.evaluate.centre import accuracy_and_loss, batches, predictions
from minicnn.evaluate.precise import precise_bn
from minicnn.evaluate.views import Views, choose
from minicnn.evaluate.weights import averaged, configuration, load, metadata, normalised_for, weights_file

__all__ = [
    "Views",
    "accuracy_and_loss",
    "averaged",
    "batches",
    "choose",
    "configuration",
    "dense",
    "load",
    "metadata",
    "normalised_for",
    "precise_bn",
    "predictions",
    "report",
    "scores",
    "top",
    "weights_file",
    "wilson",
]
