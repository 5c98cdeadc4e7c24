"""The command `python -m minicnn.train`: read from the top, it is the life of a run."""

from __future__ import annotations

import math
import sys
import time
import warnings
from typing import Any

from minicnn import _cli, data, device, evaluate
from minicnn.data import Dataset
from minicnn.train import memory
from minicnn.train import options as settings
from minicnn.train.progress import Progress, say
from minicnn.train.run import Row, Run
from minicnn.train.trainer import ADVICE, NotFinite, Trainer


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    options = settings.parser().parse_args(arguments)
    config = settings.configuration(options)
    if options.resume and not options.out:
        raise ValueError("--resume needs --out: the folder of the run to go on with")
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of NaN and Inf: the trainer watches for them itself
    on, why = device.choose(options.device)
    say(f"device: {on} ({why})")
    if options.threads:
        device.set_threads(options.threads)

    train, test = data.load_pair(config["data"], image_size=config["image_size"], skip_corrupt=config["skip_corrupt"])
    validation = None
    if config["validation"]:
        train, validation = data.split_validation(train, config["validation"], config["seed"])
    run = Run(options.out, options.model)
    starts = not run.goes_on(options.resume)
    trainer = Trainer(config, train, on=on, loader_threads=options.loader_threads, starts=starts)
    kept = f" and {trainer.frozen():,} frozen ones" if trainer.frozen() else ""
    say(f"{trainer.model.name}: {trainer.parameters():,} parameters{kept}, {train}")
    if trainer.taken:
        say(str(trainer.taken))

    if run.begin(config, resume=options.resume, overwrite=options.overwrite):
        trainer.restore(*run.read_last())
        if run.is_finished(config["epochs"]):
            say(f"{run.folder}: is finished after {trainer.epochs_done} epochs; --epochs may grow")
            return 0
        run.write_config(config)  # of it, epochs may have grown
        say(f"{run.folder}: goes on after epoch {trainer.epochs_done}")
    else:
        run.write_last(trainer.saved(), trainer.metadata())  # a disk that has no room is found now

    try:
        compile_seconds = compile_kernels(trainer)
        learn(trainer, run, validation)
        result = measure(trainer, run, test)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"; the last finished epoch is saved: to go on, repeat the command with --out {run.folder} --resume"
        ) from None
    skipped = [file for part in (train, validation, test) if part is not None for file in part.corrupt]
    if skipped:
        say(f"skipped {len(skipped)} files that cannot be decoded, such as {skipped[0]}; result.json lists them")
    result |= {"compile_seconds": round(compile_seconds, 3), "device": on, "threads": device.threads()}
    run.write_result(result | {"skipped_files": skipped})
    say(
        f"test accuracy {result['test_accuracy']:.4f}, loss {result['test_loss']:.4f}; "
        f"{result['train_seconds']:.1f} s of training, {compile_seconds:.1f} s of compiling; {run.folder}"
    )
    return 0


def compile_kernels(trainer: Trainer) -> float:
    """Compile what a step needs before training begins, saying what; seconds spent on it."""
    if trainer.device == "cpu":
        from kernels.cpu import compile as compiler

        compiler.on_compile(lambda name: say(f"compiling {name} (once; kept for the next run)"))
    with memory.explained(trainer):
        return trainer.compile()


def learn(trainer: Trainer, run: Run, validation: Dataset | None, progress: Progress | None = None) -> None:
    """Train the epochs that are left; after each, the run folder holds all that is needed to go on."""
    epochs = trainer.config["epochs"]
    rows = run.read_metrics()[: trainer.epochs_done]
    with progress or Progress(epochs, len(trainer.loader), trainer.epochs_done) as shown:
        while trainer.epochs_done < epochs:
            trained = train_epoch(trainer, shown)
            validated = validate(trainer, validation) if validation else {}
            trainer.schedule.observe(validated.get("loss", trained["loss"]))

            rows.append(row(trainer, trained, validated))
            if rows[-1] is max(rows, key=score):
                with trainer.averaged() as model:
                    run.write_best(model.state_dict(), trainer.metadata())
            run.write_metrics(rows)
            run.write_last(trainer.saved(), trainer.metadata())
            shown.end_epoch(trained["loss"], trained["accuracy"], validated.get("accuracy"))


def train_epoch(trainer: Trainer, progress: Progress) -> dict[str, float]:
    """One pass over the training images: their mean loss and accuracy on the way, and how long it took."""
    images, loss, right, began = 0, 0.0, 0, time.perf_counter()
    with memory.explained(trainer):
        for count, mean_loss, hits in trainer.epoch():
            images, loss, right = images + count, loss + mean_loss * count, right + hits
            progress.step(count, loss / images, right / images)
    seconds = time.perf_counter() - began
    return {"loss": loss / images, "accuracy": right / images, "seconds": seconds, "images": images}


def validate(trainer: Trainer, dataset: Dataset) -> dict[str, float]:
    """Accuracy and mean loss on a data set, of the weights that count; NotFinite where they have diverged."""
    with trainer.averaged() as model:
        result = evaluate.accuracy_and_loss(model, dataset, on=trainer.device)
    if not math.isfinite(result["loss"]):
        raise NotFinite(f"after step {trainer.optimiser.steps} the loss on other images is {result['loss']}; {ADVICE}")
    return result


def row(trainer: Trainer, trained: dict[str, float], validated: dict[str, float]) -> Row:
    """An epoch in `metrics.csv`."""
    numbers = {
        "epoch": trainer.epochs_done,
        "step": trainer.optimiser.steps,
        "lr": trainer.optimiser.lr,
        "train_loss": trained["loss"],
        "train_accuracy": trained["accuracy"],
        "validation_loss": validated.get("loss"),
        "validation_accuracy": validated.get("accuracy"),
        "images": trained["images"],
        "seconds": trained["seconds"],
        **trainer.precision.figures(),
    }
    return {key: "" if number is None else f"{number:.8g}" for key, number in numbers.items()}


def score(epoch: Row) -> tuple[float, ...]:
    """What makes an epoch the best one: validation accuracy, then validation loss; without validation, being last."""
    if not epoch["validation_accuracy"]:
        return (float(epoch["epoch"]),)
    return float(epoch["validation_accuracy"]), -float(epoch["validation_loss"])


def measure(trainer: Trainer, run: Run, test: Dataset) -> dict[str, Any]:
    """The figures that a run ends with, of its last weights."""
    rows = run.read_metrics()
    tested, trained = validate(trainer, test), validate(trainer, trainer.loader.dataset)
    seconds, images = (sum(float(epoch[key]) for epoch in rows) for key in ("seconds", "images"))
    return {
        "model": trainer.model.name,
        "test_accuracy": tested["accuracy"],
        "test_loss": tested["loss"],
        "train_accuracy": trained["accuracy"],
        "train_loss": trained["loss"],
        "epochs": trainer.epochs_done,
        "train_seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1),
        "parameters": trainer.parameters(),
        "seed": trainer.config["seed"],
        **trainer.precision.figures(),
    }


if __name__ == "__main__":
    sys.exit(main())
