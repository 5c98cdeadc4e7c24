"""The trainer: `python -m minicnn.train`.

options    what can be said on the command line, and the recipes that fill in the rest
trainer    the loop itself: model, optimiser, schedule, data; a step, an epoch, an evaluation
run        the run folder: configuration, metrics, checkpoints, result
progress   the bar, or plain lines
"""

from minicnn.train.trainer import Trainer, evaluate

__all__ = ["Trainer", "evaluate"]
