"""Each way in which CUDA cannot be used is one line with its remedy; the machines that show them are made up here."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace

import pytest

from minicnn import cuda, device

pytestmark = pytest.mark.cpu_only("describes the machine")


class CudaError(RuntimeError):
    """CuPy's CUDARuntimeError is a RuntimeError too."""


def raising(error):
    def function(*_):
        raise error

    return function


@pytest.fixture
def machine(monkeypatch):
    """Put a machine in place of this one: by default one on which all is well."""

    def put(
        *,
        wheels=("cupy-cuda12x",),
        made_for=12090,
        nvrtc=lambda: (12, 9),
        load=lambda name: None,
        driver=13000,
        count=1,
        capability=(9, 0),
    ):
        packages = [SimpleNamespace(name=name, version="14.2.0") for name in ("numpy", *wheels)]
        monkeypatch.setattr(metadata, "distributions", lambda: packages)
        monkeypatch.setattr(cuda, "driver_version", lambda: driver)
        device.cuda_problem.cache_clear()
        if not wheels:
            monkeypatch.setitem(sys.modules, "cupy", None)
            return
        name, (major, minor) = b"NVIDIA H100", capability
        module = ModuleType("cupy")
        module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        module.__version__ = "14.2.0"
        module.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                is_hip=False,
                runtimeGetVersion=lambda: made_for,
                driverGetVersion=lambda: driver,
                getDeviceCount=count if callable(count) else lambda: count,
                getDeviceProperties=lambda i: {
                    "name": name,
                    "major": major,
                    "minor": minor,
                    "totalGlobalMem": 80 * 10**9,
                },
            ),
        )
        libraries = ModuleType("cupy_backends.cuda.libs")
        libraries.nvrtc = SimpleNamespace(getVersion=nvrtc)
        pathfinder = ModuleType("cuda.pathfinder")
        pathfinder.load_nvidia_dynamic_lib = load
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
        monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", libraries)

    yield put
    device.cuda_problem.cache_clear()


def lines():
    return [str(check()) for check in cuda.NEEDED]


def test_a_sound_machine(machine):
    machine()
    assert lines() == [
        "ok       CuPy 14.2.0 (cupy-cuda12x 14.2.0)",
        "ok       CUDA toolkit with NVRTC 12.9 and cuBLAS",
        "ok       NVIDIA driver for CUDA up to 13.0",
        "ok       NVIDIA H100, compute capability 9.0, 80 GB",
    ]
    assert device.choose("auto") == ("cuda", "NVIDIA H100, compute capability 9.0, 80 GB")
    assert device.choose("cuda") == ("cuda", "asked for")


@pytest.mark.parametrize(("driver", "extra"), [(0, "cuda12"), (12040, "cuda12"), (13000, "cuda13")])
def test_without_cupy_the_command_installs_the_one_for_the_driver(machine, driver, extra):
    machine(wheels=(), driver=driver)
    assert lines()[0] == f"missing  CuPy is not installed: pip install 'minicnn[{extra}]'"
    assert {line.split()[0] for line in lines()} <= {"missing", "ok"}
    assert device.choose("auto") == ("cpu", f"CuPy is not installed; pip install 'minicnn[{extra}]'")


TROUBLES = {
    "two wheels": (
        {"wheels": ("cupy-cuda12x", "CuPy_CUDA13x")},
        cuda.cupy,
        "more than one CuPy is installed, cupy-cuda12x 14.2.0 and cupy-cuda13x 14.2.0: "
        "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install 'minicnn[cuda13]'",
    ),
    "no compiler": (
        {"nvrtc": raising(RuntimeError('Failure finding "libnvrtc.so.12": No such file:\nlibnvrtc.so.12'))},
        cuda.toolkit,
        "CUDA toolkit: Failure finding \"libnvrtc.so.12\": pip install 'minicnn[cuda12]'",
    ),
    "no cuBLAS": (
        {"load": raising(RuntimeError('Failure finding "libcublas.so.12": No such file'))},
        cuda.toolkit,
        "CUDA toolkit: Failure finding \"libcublas.so.12\": pip install 'minicnn[cuda12]'",
    ),
    "another toolkit": (
        {"nvrtc": lambda: (13, 0)},
        cuda.toolkit,
        "CUDA toolkit with NVRTC 13.0 and cuBLAS, but CuPy is made for CUDA 12: pip install 'minicnn[cuda12]'",
    ),
    "old driver": (
        {"wheels": ("cupy-cuda13x",), "made_for": 13000, "nvrtc": lambda: (13, 1), "driver": 12080},
        cuda.driver,
        "NVIDIA driver for CUDA up to 12.8, older than the toolkit, 13.1: install NVIDIA's current driver, "
        "https://www.nvidia.com/drivers, or pip uninstall -y cupy-cuda13x && pip install 'minicnn[cuda12]'",
    ),
    "very old driver": (
        {"driver": 11080},
        cuda.driver,
        "NVIDIA driver for CUDA up to 11.8, older than the toolkit, 12.9: install NVIDIA's current driver, "
        "https://www.nvidia.com/drivers",
    ),
    "no driver": (
        {"driver": 0},
        cuda.driver,
        "NVIDIA driver: none answers: install NVIDIA's current driver, https://www.nvidia.com/drivers",
    ),
    "no card": (
        {"count": 0},
        cuda.card,
        "CUDA card: none is visible: see nvidia-smi, and CUDA_VISIBLE_DEVICES",
    ),
    "a card that fails": (
        {"count": raising(CudaError("cudaErrorUnknown"))},
        cuda.card,
        "CUDA card: none answers (cudaErrorUnknown): see nvidia-smi, and CUDA_VISIBLE_DEVICES",
    ),
    "an old card": (
        {"capability": (7, 0)},
        cuda.card,
        "NVIDIA H100, compute capability 7.0, 80 GB, below 7.5: choose another card by CUDA_VISIBLE_DEVICES, "
        "or --device cpu",
    ),
}


@pytest.mark.parametrize(("given", "check", "line"), TROUBLES.values(), ids=TROUBLES)
def test_something_wrong_is_said_with_its_remedy(machine, given, check, line):
    machine(**given)
    found = check()
    assert str(found) == f"wrong    {line}"
    assert device.choose("auto") == ("cpu", f"{found.text}; {found.fix}")
    with pytest.raises(RuntimeError, match="device: CUDA cannot be used: ") as error:
        device.choose("cuda")
    assert found.text in str(error.value)


def test_a_driver_runs_what_a_newer_toolkit_of_its_major_version_made(machine):
    machine(made_for=12090, driver=12020)
    assert cuda.driver().state == "ok"


def test_a_cupy_that_cannot_be_imported(machine, tmp_path, monkeypatch):
    machine()
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart\\nis not there')")
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.syspath_prepend(tmp_path)
    assert str(cuda.cupy()) == (
        "wrong    CuPy (cupy-cuda12x 14.2.0) cannot be imported (libcudart is not there): "
        "pip uninstall -y cupy-cuda12x && pip install 'minicnn[cuda13]'"
    )


def test_the_cache_of_kernels(tmp_path, monkeypatch):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("CUPY_CACHE_DIR", str(folder))
    assert cuda.cache().text.endswith("can be written: 0 files of 0 MB") and not folder.exists()
    folder.mkdir()
    (folder / "a.cubin").write_bytes(bytes(2_000_000))
    assert cuda.cache().text == f"cache folder of CUDA kernels {folder}, can be written: 1 files of 2 MB"
    monkeypatch.setenv("CUPY_CACHE_DIR", str(folder / "a.cubin" / "below"))
    assert cuda.cache().state == "wrong"


def test_nothing_imports_cupy_until_it_is_asked_for(tmp_path):
    (tmp_path / "cupy.py").write_text("raise SystemExit('imported')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import minicnn.train.__main__, minicnn.evaluate.__main__, minicnn.doctor, kernels.cuda\n"
        "from minicnn import device\n"
        "device.choose('cpu')\n"
        "assert 'cupy' not in sys.modules\n"
        "device.choose('auto')"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (1, "imported\n")
