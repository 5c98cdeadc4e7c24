"""The trainer: `python -m minicnn.train`.

options    what can be said on the command line, and the recipes that fill in the rest
trainer    all that changes while a network learns: a step, an epoch, a checkpoint
finetune   to start from other weights, and to keep some as they are
feed       batches on their way to the device
precision  how many bits a step computes with
run        the run folder: configuration, metrics, checkpoints, result
progress   the bar, or plain lines
__main__   the life of a run, from the top: options, data, epochs, result
"""

from minicnn.train.trainer import Trainer

__all__ = ["Trainer"]
