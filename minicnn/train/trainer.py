"""A Trainer holds all that changes while a network learns, and changes it: a step, an epoch, a checkpoint."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import minicnn
from kernels import array_module
from minicnn import Tensor, autograd, checkpoint, device, evaluate, models, optim, schedules
from minicnn.data import Dataset, Loader, augment
from minicnn.layers import Dropout
from minicnn.train import finetune, precision
from minicnn.train.feed import Feed

Arrays = dict[str, Any]
ADVICE = "a smaller --lr, --clip 1 or a warm-up may help"
FEW = 4  # images of a step that is made for what it compiles or takes
# After so many steps their losses are read. To read one from a device is to wait for it, and then for new work there.
READ_EVERY = {"cpu": 1, "cuda": 20}


class NotFinite(ArithmeticError):
    """The loss has become NaN or Inf; the message names the step and the first op."""


class Step(NamedTuple):
    """What a step leaves to be read, where it was computed: on a device nothing waits for it."""

    images: int
    loss: Any  # () their mean loss
    right: Any  # () how many were classified right before the step


class Trainer:
    """Model, optimiser, schedule, averages and data of one run: `epoch()` trains one epoch.

    `config` is what `options.configuration` makes. All randomness comes from its seed, so two trainers of the same
    configuration hold the same numbers after the same number of epochs, bit for bit, on any number of threads; so
    does one that `restore`d what another one had `saved`.

    `taken` says what the network has begun with, where `--init-from` says where from; `starts=False`, where `restore`
    follows, does not look there again.
    """

    def __init__(
        self, config: dict[str, Any], train: Dataset, *, on: str = "cpu", loader_threads: int = 1, starts: bool = True
    ):
        self.config, self.device = config, on
        minicnn.seed(config["seed"])
        changes = augment.parse(config["augment"])
        of_precision = precision.choose(config["precision"], on)
        self.loader = Loader(
            train,
            config["batch_size"],
            augment=changes,
            seed=config["seed"],
            threads=loader_threads,
            dtype=of_precision.maps,
            unfinished=on != "cpu",
        )
        self.feed = Feed(self.loader, on)
        self.image_shape = changes(train.take(np.arange(1))[0], np.random.default_rng(0)).shape[1:]  # (H, W, C)
        self.model = models.build(
            config["model"], train.num_classes, self.image_shape[2], self.image_shape[0], **config["variant"]
        )
        self.model.seed_dropout(config["seed"])
        self.taken = finetune.initialise(self.model, config["init_from"]) if config["init_from"] and starts else None
        self.model.to(device=on)
        self.precision = of_precision(self.model)
        self.frozen_norms = finetune.freeze(self.model, config["freeze"]) if config["freeze"] is not None else []
        self.optimiser = self._optimiser()
        self.schedule = schedules.parse(config["schedule"], config["epochs"])
        self.average = self._average()

    def _optimiser(self) -> optim.Optimiser:
        c = self.config
        groups = optim.decay_groups(self.model, c["weight_decay"], norm_and_bias=c["decay_all"])
        if c["optimizer"] == "sgd":
            return optim.SGD(groups, c["lr"], momentum=c["momentum"], nesterov=c["nesterov"])
        if c["optimizer"] == "rmsprop":
            return optim.RMSProp(groups, c["lr"], momentum=c["momentum"], eps=c["rms_eps"], eps_inside=True)
        return {"adam": optim.Adam, "adamw": optim.AdamW}[c["optimizer"]](groups, c["lr"])

    def _average(self) -> optim.EMA | None:
        if self.config["polyak"]:
            return optim.Polyak(self.model)
        return optim.EMA(self.model, self.config["ema"]) if self.config["ema"] else None

    @property
    def epochs_done(self) -> int:
        return self.loader.epoch

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.size for p in self.model.parameters())

    def frozen(self) -> int:
        """How many numbers are kept as they are."""
        tensors = {id(t): t for module in self.model.modules() for t in vars(module).values() if isinstance(t, Tensor)}
        return sum(t.size for t in tensors.values() if not t.requires_grad)

    # Training

    def epoch(self) -> Iterator[tuple[int, float, int]]:
        """Train one epoch; for each step how many images it had, their mean loss, how many were classified right.

        On a device the figures of READ_EVERY steps come together, after the last of them.
        """
        self._train()
        unread: list[Step] = []
        for images, labels in self.feed:
            unread.append(self.step(images, labels))
            if len(unread) == READ_EVERY[self.device]:
                yield from self._read(unread, images, labels)
                unread = []
        if unread:
            yield from self._read(unread, images, labels)
        if bad := self._not_finite():  # the last step's damage would show in the next epoch's loss, if there is one
            raise NotFinite(f"step {self.optimiser.steps} has made {bad} NaN or Inf; {ADVICE}")

    def _train(self) -> None:
        """Put the model into training mode, but for what is frozen."""
        self.model.train()
        for norm in self.frozen_norms:
            norm.eval()

    def step(self, images: Any, labels: Any) -> Step:
        """Train on one batch. The host only asks for the work, and never waits for a device to do it."""
        self.optimiser.lr = self.config["lr"] * self.schedule(self.feed.epochs)
        drawn = self._dropout_steps()
        loss, logits = self.forward(images, labels)
        if self.device == "cpu" and not np.isfinite(loss.data):  # seen at once, before it does damage
            self._set_dropout_steps(drawn)
            step = self.optimiser.steps + 1
            raise NotFinite(f"the loss is {loss.item()} at step {step}: {self._cause(images, labels)}; {ADVICE}")
        self._learn(loss)
        right = (logits.data.argmax(axis=1) == device.to(labels, self.device)).sum()
        return Step(len(labels), loss.data, right)

    def _learn(self, loss: Tensor) -> None:
        """Change the weights by what the loss says of them."""
        self.optimiser.zero_grad()
        loss.backward(self.precision.upstream(loss))
        self.optimiser.step(self.precision.factor(self.config["clip"]))
        if self.config["max_filter_rms"]:
            optim.clip_filter_rms(self.model, self.config["max_filter_rms"])
        if self.average is not None:
            self.average.update()

    def _read(self, steps: list[Step], images: Any, labels: Any) -> Iterator[tuple[int, float, int]]:
        """The figures of the last steps as Python's numbers; NotFinite for the first loss that is none.

        images, labels: the batch of the last of them.
        """
        xp = array_module(steps[0].loss)
        losses, rights = (
            device.to(xp.stack(column), "cpu") for column in zip(*((s.loss, s.right) for s in steps), strict=True)
        )
        for i, (count, loss, right) in enumerate(zip((s.images for s in steps), losses, rights, strict=True)):
            if not np.isfinite(loss):
                now = self.optimiser.steps
                raise NotFinite(
                    f"the loss is {loss} at step {now - len(steps) + i + 1}, read after step {now}: "
                    f"{self._cause(images, labels)}; {ADVICE}"
                )
            yield count, float(loss), int(right)
        if problem := self.precision.problem():
            raise NotFinite(f"after step {self.optimiser.steps} {problem}; {ADVICE}")

    def forward(self, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and the logits of the network's main head."""
        x, y = device.to(images, self.device), device.to(labels, self.device)
        with self.precision.working():
            outputs = self.precision.scores(self.model(Tensor(x)))
        loss = models.loss(outputs, y, label_smoothing=self.config["label_smoothing"])
        return loss, outputs[0] if isinstance(outputs, tuple) else outputs

    def _cause(self, images: Any, labels: Any) -> str:
        """Where the first NaN or Inf comes from: the same batch and masks once more, every op watched."""
        bad = self._not_finite()
        damage = f", after the step before had made {bad} NaN or Inf" if bad else ""
        try:
            with autograd.detect_anomaly():
                self.forward(images, labels)
        except FloatingPointError as error:
            return f"{error}{damage}"
        return damage.removeprefix(", ") or "a later batch does not show why"

    def _not_finite(self) -> str | None:
        """The name of the first parameter or running statistic that holds NaN or Inf."""
        states = self.model.state_dict().items()
        return next((name for name, a in states if not np.isfinite(device.to(a, "cpu")).all()), None)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[models.Model]:
        """The model as it is evaluated: with the averaged weights, if the recipe has such."""
        with self.average.applied() if self.average is not None else contextlib.nullcontext():
            yield self.model

    def compile(self) -> float:
        """Run a step on nothing, so that every kernel is compiled before the clock starts; seconds that it took.

        It leaves no trace: weights, statistics, masks and the optimiser's state are put back.
        """
        began = time.perf_counter()
        before = {name: array.copy() for name, array in self.saved().items()}
        self._train()
        drawn = self._dropout_steps()
        images = np.zeros((min(FEW, self.config["batch_size"]), *self.image_shape), np.float32)
        labels = np.arange(len(images)) % self.model.num_classes
        loss, _ = self.forward(images.astype(self.loader.dtype), labels)
        self._learn(loss)
        evaluate.accuracy_and_loss(self.model, [(images, labels)], on=self.device)
        self.optimiser.zero_grad()
        self._restore_arrays(before)
        self._set_dropout_steps(drawn)
        return time.perf_counter() - began

    # Saving

    def saved(self) -> Arrays:
        """Every array that training goes on from; together with `metadata` it is all."""
        arrays = dict(self.model.state_dict())
        arrays |= {f"optimiser/{name}": array for name, array in self.optimiser.state_dict().items()}
        if self.average is not None:
            arrays |= {f"average/{name}": array for name, array in self.average.state_dict().items()}
        arrays |= {f"precision/{name}": array for name, array in self.precision.state_dict().items()}
        return arrays

    def metadata(self) -> dict[str, str]:
        """What is not an array: which network, how far, and the positions of schedule and generators."""
        return {
            "model": json.dumps(self.model.config),
            "epoch": str(self.epochs_done),
            "step": str(self.optimiser.steps),
            "schedule": json.dumps(self.schedule.state_dict()),
            "dropout": json.dumps(self._dropout_steps()),
        }

    def restore(self, arrays: Arrays, metadata: dict[str, str]) -> None:
        """Go on from what another trainer of the same configuration `saved`."""
        theirs = json.loads(metadata.get("model", "null"))
        if theirs != self.model.config:
            raise ValueError(f"the checkpoint is of another model: {theirs}, this is {self.model.config}")
        if missing := sorted({"epoch", "schedule", "dropout"} - set(metadata)):
            raise ValueError(f"the checkpoint does not say its {missing[0]}: it is not one to go on from")
        self._restore_arrays(arrays)
        self.schedule.load_state_dict(json.loads(metadata["schedule"]))
        self._set_dropout_steps(json.loads(metadata["dropout"]))
        self.loader.set_state({"epoch": int(metadata["epoch"]), "batch": 0})

    def _restore_arrays(self, arrays: Arrays) -> None:
        self.model.load_state_dict(checkpoint.part(arrays))
        self.optimiser.load_state_dict(checkpoint.part(arrays, "optimiser"))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.part(arrays, "average"))
        self.precision.load_state_dict(checkpoint.part(arrays, "precision"))

    def _dropouts(self) -> list[Dropout]:
        return [module for module in self.model.modules() if isinstance(module, Dropout)]

    def _dropout_steps(self) -> list[int]:
        return [layer.rng.step for layer in self._dropouts()]

    def _set_dropout_steps(self, steps: list[int]) -> None:
        for layer, step in zip(self._dropouts(), steps, strict=True):
            layer.rng.step = step
