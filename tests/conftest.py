"""What all tests share: the device of their arrays, Hypothesis profiles, published data, the reference backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, settings

import kernels
from kernels import reference as reference_backend
from tests import device

# A first call may compile for seconds: no deadlines. `default` draws the same examples in every run.
settings.register_profile("base", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("default", settings.get_profile("base"), max_examples=25, derandomize=True)
settings.register_profile("thorough", settings.get_profile("base"), max_examples=500)
# On the host every new kernel is compiled, and a failure is not made smaller: that would compile many more.
few = {"max_examples": 3, "phases": (Phase.explicit, Phase.generate)}
settings.register_profile("host", settings.get_profile("default"), **few)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "host", "cuda"),
        default="cpu",
        help="where arrays lie: NumPy's (cpu), CuPy's on a GPU (cuda), CuPy's with the CPU in its place (host)",
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("device")
    config.addinivalue_line("markers", "cpu_only(reason): needs NumPy arrays, for the reason given")
    config.addinivalue_line("markers", "not_on_host(reason): runs on a GPU alone, for the reason given")
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "host" if chosen == "host" else "default"))
    if chosen == "cpu":
        return
    launches = None  # nobody counts them on a GPU
    if chosen == "host":
        from tests.cuda.host import cupy_on_host, environment

        try:
            cupy_on_host.enter(environment.existing())
        except FileNotFoundError as error:
            raise pytest.UsageError(str(error)) from None
        launches = cupy_on_host.launches
    device.use()
    config.pluginmanager.register(device.Selection(chosen == "host", launches))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with published weights and test images; without MINICNN_SHARED the tests that need it are skipped."""
    if "MINICNN_SHARED" not in os.environ:
        pytest.skip("MINICNN_SHARED names no folder with published weights and test images")
    folder = Path(os.environ["MINICNN_SHARED"])
    assert folder.is_dir(), f"MINICNN_SHARED={folder} is not a folder"
    return folder


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """The reference backend, in force also for the parts that its composed kernels take from `kernels.of`."""
    with kernels.use("reference"):
        yield reference_backend
