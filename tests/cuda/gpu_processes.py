"""What `tests.cuda.gpu` does in processes of their own: facts, training steps of both sides, the sanitizer's short run.

`on` is "cuda", a GPU, or "host", the CPU in its place, where nothing is timed.
"""

from __future__ import annotations

import shutil
import subprocess

from benchmarks import sides
from benchmarks.harness import Record
from benchmarks.networks import NETWORKS, Network
from benchmarks.step import timed

COMPARED = {
    "cuda": {name: NETWORKS[name] for name in ("resnet18", "resnet50", "vgg-16", "googlenet")},
    "host": {"resnet20, small": Network("resnet20", 2, 32), "vgg-a, small": Network("vgg-a", 2, 32)},
}
SHORT = (Network("resnet20", 2, 32), Network("googlenet", 1, 224))  # for a sanitizer, which slows kernels down


def enter(on: str) -> None:
    """Put the CPU in a GPU's place, if that is what is asked for."""
    if on == "host":
        from tests.cuda.host import cupy_on_host, environment

        cupy_on_host.enter(environment.existing())


def facts(threads: int, on: str) -> Record:
    """`problem`, why CUDA cannot be used or None, the `card`, and what else a reader wants to know of the machine."""
    enter(on)
    from minicnn import cuda

    findings = {check.__name__: check() for check in (*cuda.NEEDED, cuda.cache)}
    known = {name: str(finding) for name, finding in findings.items()}
    problem = cuda.problem()
    if on == "cuda" and problem is None:
        import cupy

        known["cuBLAS"] = str(cupy.cuda.cublas.getVersion(cupy.cuda.device.get_cublas_handle()))
    return {"problem": problem, "card": findings["card"].text.partition(",")[0], "known": {**known, **_nvidia_smi()}}


def _nvidia_smi() -> dict[str, str]:
    """The driver's own number, and the clocks and the power that the card may take."""
    wanted = "driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return {f"nvidia-smi, {wanted}": answer.stdout.strip().replace("\n", "; ")} if answer.returncode == 0 else {}


def torch_facts(threads: int) -> Record:
    """PyTorch's versions, and whether it sees a GPU."""
    import torch

    return {
        "available": torch.cuda.is_available(),
        "known": {
            "PyTorch": torch.__version__,
            "PyTorch's CUDA": str(torch.version.cuda),
            "PyTorch's cuDNN": str(torch.backends.cudnn.version()),
        },
    }


def minicnn_step(threads: int, network: str, on: str, seconds: float) -> Record:
    """The time of a training step on arrays that lie on the device, its loss read after every step."""
    enter(on)
    return _measured(sides.minicnn_step(COMPARED[on][network], threads, on="cuda"), on, seconds)


def torch_step(threads: int, network: str, on: str, seconds: float, *, channels_last: bool, tf32: bool) -> Record:
    """The same of PyTorch, with cuDNN's search for the fastest algorithms; on the CPU where `on` is "host"."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    where = "cuda" if on == "cuda" else "cpu"
    return _measured(
        sides.torch_step(COMPARED[on][network], threads, channels_last=channels_last, on=where), on, seconds
    )


def _measured(step: sides.Step, on: str, seconds: float) -> Record:
    step()  # compiles, and searches for algorithms
    if on == "host":
        return timed(step, 0, least=1) | {"ms": None}  # it is not a GPU's time
    step()
    return timed(step, seconds, least=5)


def short(threads: int) -> Record:
    """Two steps of small networks, every array in an allocation of its own, so that a sanitizer sees where it ends."""
    import cupy

    cupy.cuda.set_allocator(None)
    return {"losses": [[step(), step()] for step in (sides.minicnn_step(each, threads, on="cuda") for each in SHORT)]}
