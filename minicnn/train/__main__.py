"""The command `python -m minicnn.train`: read from the top, it is the life of a run."""

from __future__ import annotations

import sys
import time
from typing import Any

from minicnn import _cli, data, device
from minicnn.data import Dataset, Loader
from minicnn.train import options as settings
from minicnn.train.progress import Progress, say
from minicnn.train.run import Run
from minicnn.train.trainer import Trainer, evaluate

EVALUATION_BATCH = 250


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    options = settings.parser().parse_args(arguments)
    config = settings.configuration(options)
    if options.resume and not options.out:
        raise ValueError("--resume needs --out: the folder of the run to go on with")
    on, why = device.choose(options.device)
    say(f"device: {on} ({why})")
    if options.threads:
        device.set_threads(options.threads)

    train, test = data.load_pair(config["data"], image_size=config["image_size"], skip_corrupt=config["skip_corrupt"])
    validation = None
    if config["validation"]:
        train, validation = data.split_validation(train, config["validation"], config["seed"])
    trainer = Trainer(config, train, on=on, loader_threads=options.loader_threads)

    run = Run(options.out, options.model)
    going_on = run.begin(config, resume=options.resume, overwrite=options.overwrite)
    if going_on:
        trainer.restore(*run.read_last())
        if trainer.epochs_done >= config["epochs"] and run.result() is not None:
            say(f"{run.folder}: is finished after {trainer.epochs_done} epochs; --epochs may grow")
            return 0
        say(f"{run.folder}: goes on after epoch {trainer.epochs_done}")
    say(f"{trainer.model.name}: {trainer.parameters():,} parameters, {train}")

    compile_seconds = compile_kernels(trainer, on)
    try:
        result = learn(trainer, run, validation, test)
    except KeyboardInterrupt:
        saved = (
            f"the run is saved up to epoch {trainer.epochs_done}"
            if run.path("last.safetensors").exists()
            else "not saved yet"
        )
        raise KeyboardInterrupt(
            f" in epoch {trainer.epochs_done + 1}; {saved}; go on with the same command and --out {run.folder} --resume"
        ) from None
    result |= {"compile_seconds": round(compile_seconds, 3), "device": on, "threads": device.threads()}
    run.write_result(result)
    say(
        f"test accuracy {result['test_accuracy']:.4f}, loss {result['test_loss']:.4f}; "
        f"{result['train_seconds']:.1f} s of training, {compile_seconds:.1f} s of compiling; {run.folder}"
    )
    for file in train.corrupt:
        say(f"skipped, cannot be decoded: {file}")
    return 0


def compile_kernels(trainer: Trainer, on: str) -> float:
    """Compile what a step needs before training begins, saying what; seconds spent on it."""
    if on == "cpu":
        from kernels.cpu import compile as compiler

        compiler.on_compile(lambda name: say(f"compiling {name} (once; kept for the next run)"))
    return trainer.compile()


def learn(trainer: Trainer, run: Run, validation: Dataset | None, test: Dataset) -> dict[str, Any]:
    """Train the epochs that are left, writing the run folder after each; the final result."""
    config, loader = trainer.config, trainer.loader
    rows: list[dict[str, Any]] = list(run.metrics())[: trainer.epochs_done]
    best = max((float(row["validation_accuracy"] or 0) for row in rows), default=-1.0)
    with Progress(config["epochs"], len(loader), trainer.epochs_done * len(loader)) as progress:
        while trainer.epochs_done < config["epochs"]:
            began, seconds = time.perf_counter(), 0.0
            count, total_loss, right = 0, 0.0, 0
            for images, loss, hits in trainer.epoch():
                count, total_loss, right = count + images, total_loss + loss * images, right + hits
                progress.step(images, total_loss / count, right / count)
            seconds = time.perf_counter() - began

            checked = {"accuracy": None, "loss": None}
            if validation is not None:
                with trainer.averaged() as model:
                    checked = evaluate(model, batches(validation, trainer), trainer.device)
            trainer.schedule.observe(total_loss / count if checked["loss"] is None else checked["loss"])
            rows.append({
                "epoch": trainer.epochs_done,
                "step": trainer.optimiser.steps,
                "lr": f"{trainer.optimiser.lr:.6g}",
                "train_loss": f"{total_loss / count:.6f}",
                "train_accuracy": f"{right / count:.6f}",
                "validation_loss": "" if checked["loss"] is None else f"{checked['loss']:.6f}",
                "validation_accuracy": "" if checked["accuracy"] is None else f"{checked['accuracy']:.6f}",
                "images_per_second": f"{count / seconds:.1f}",
                "seconds": f"{seconds:.3f}",
            })  # fmt: skip
            score = 0.0 if checked["accuracy"] is None else checked["accuracy"]
            if score > best or validation is None:
                best = score
                with trainer.averaged() as model:
                    run.write_best(model.state_dict(), trainer.metadata())
            run.write_metrics(rows)
            run.write_last(trainer.saved(), trainer.metadata())

    with trainer.averaged() as model:
        tested = evaluate(model, batches(test, trainer), trainer.device)
        trained = evaluate(model, batches(loader.dataset, trainer), trainer.device)
    seconds = sum(float(row["seconds"]) for row in rows)
    images = len(loader.dataset) * len(rows)
    return {
        "model": trainer.model.name,
        "test_accuracy": tested["accuracy"],
        "test_loss": tested["loss"],
        "train_accuracy": trained["accuracy"],
        "validation_accuracy": float(rows[-1]["validation_accuracy"] or "nan") if validation is not None else None,
        "train_seconds": round(seconds, 3),
        "epochs": trainer.epochs_done,
        "images_per_second": round(images / seconds, 1),
        "parameters": trainer.parameters(),
        "seed": config["seed"],
    }


def batches(dataset: Dataset, trainer: Trainer) -> Loader:
    """The images of a data set as they are evaluated: in order, not augmented, at the size that the network was built for."""
    from minicnn.data import augment

    size = trainer.image_shape[0]
    crop = None if dataset.image_size == size else augment.parse(f"centre-crop:{size}")
    return Loader(dataset, min(EVALUATION_BATCH, len(dataset)), augment=crop, shuffle=False)


if __name__ == "__main__":
    sys.exit(main())
