"""Threads share out work and change no bit of a result; compiled code is kept between processes and never mixed up."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import kernels.cpu as cpu
from kernels.cpu import blas, compile, cores, threads


@pytest.fixture(autouse=True)
def restore_count():
    before = threads.count()
    yield
    threads.set_count(before)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def results() -> dict[str, list[np.ndarray]]:
    """Kernels at sizes that are worth several threads, and that no number of threads divides."""
    x, w, b = random(3, 37, 29, 24), random(3, 3, 24, 40), random(40)
    y = cpu.conv2d(x, w, b, pad=1)
    gy = random(*y.shape, seed=1)
    gamma, beta = random(40, seed=2), random(40, seed=3)
    mean, var = cpu.batch_norm_stats(y)
    z = cpu.bn_relu(y, gamma, beta, mean, var, gy)
    pooled, winners = cpu.max_pool(y, 3, stride=2)
    averaged = cpu.avg_pool(y, 3, stride=2)
    wide, dense = random(9, 700), random(700, 1111)
    parameter, velocity = dense.copy(), dense[::-1].copy()
    cpu.sgd_update(parameter, dense, velocity, lr=0.1, momentum=0.9)
    losses, p = cpu.cross_entropy(random(90, 999), np.arange(90))
    return {
        "convolution": [y, cpu.conv2d_relu(x, w, b), cpu.conv2d(x, w, stride=2), cpu.conv2d(x, w[:1, :1])],
        "gradients of convolution": [
            cpu.conv2d_input_grad(gy, w, x.shape, pad=1),
            cpu.conv2d_input_grad(gy[:, ::2, ::2], w, x.shape, pad=1, stride=2),
            cpu.conv2d_weight_grad(gy, x, w.shape, pad=1),
            cpu.bias_grad(gy),
        ],
        "batch norm": [mean, var, z, *cpu.batch_norm_grad(gy, y, gamma, mean, var)],
        "batch norm and relu": [*cpu.bn_relu_grad(gy, z, y, gamma, mean, var)],
        "pooling": [pooled, winners, averaged, cpu.global_avg_pool(y)],
        "gradients of pooling": [
            cpu.max_pool_grad(pooled, winners, y.shape, 3, stride=2),
            cpu.avg_pool_grad(averaged, y.shape, 3, stride=2),
            cpu.global_avg_pool_grad(wide, (9, 20, 20, 700)),
        ],
        "lrn": [cpu.lrn(x), cpu.lrn_grad(x, x, alpha=1.0)],
        "elementwise": [cpu.relu(y), cpu.relu_grad(gy, y), cpu.sigmoid(y), cpu.tanh(y), cpu.dropout(y, 0.4, (1, 2, 3))],
        "linear": [
            cpu.linear(wide, dense),
            cpu.linear_input_grad(random(9, 1111), dense),
            cpu.linear_weight_grad(random(9, 1111), wide),
        ],
        "concat": [cpu.concat(y, y), *cpu.concat_grad(y, (13, 27))],
        "loss": [losses, p, cpu.softmax(random(90, 999))],
        "update": [parameter, velocity],
    }


def test_the_same_bits_on_any_number_of_threads():
    threads.set_count(1)
    expected = results()
    for n in (2, 3, 5):
        threads.set_count(n)
        for name, arrays in results().items():
            assert all(np.array_equal(a, b) for a, b in zip(arrays, expected[name], strict=True)), (name, n)


def test_python_threads_may_call_kernels_at_once():
    threads.set_count(2)
    expected = results()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in [f.result() for f in [pool.submit(results) for _ in range(6)]]:
            for name, arrays in found.items():
                assert all(np.array_equal(a, b) for a, b in zip(arrays, expected[name], strict=True)), name


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_number_is_worked_on_once(n, count):
    threads.set_count(count)
    done = np.zeros(n, int)

    def task(begin, end, array):
        array[begin:end] += 1

    threads.parallel(task, n, done, cost=threads.WORTHWHILE)
    assert (done == 1).all()


def test_work_is_shared_out_only_where_it_pays():
    threads.set_count(2)
    parts = []
    threads.parallel(lambda begin, end: parts.append((begin, end)), 100, cost=100)
    assert parts == [(0, 100)]
    threads.parallel(lambda begin, end: parts.append((begin, end)), 100, cost=threads.WORTHWHILE)
    assert len(parts) > 2


def test_tasks_may_share_out_work_themselves():
    threads.set_count(2)
    done = np.zeros((6, 6), int)

    def inner(begin, end, row):
        row[begin:end] += 1

    def outer(begin, end):
        for i in range(begin, end):
            threads.parallel(inner, 6, done[i], cost=threads.WORTHWHILE)

    threads.parallel(outer, 6, cost=threads.WORTHWHILE)
    assert (done == 1).all()


def test_an_exception_reaches_the_caller_and_harms_nobody_else():
    threads.set_count(2)

    def task(begin, end):
        if begin <= 5 < end:
            raise ZeroDivisionError("in part 5")

    for _ in range(20):
        with pytest.raises(ZeroDivisionError, match="in part 5"):
            threads.parallel(task, 8, cost=threads.WORTHWHILE)
    assert np.array_equal(cpu.relu(np.ones(100_000)), np.ones(100_000))


def test_waiting_threads_keep_no_array_alive():
    threads.set_count(3)
    x = np.ones((300, 1000))
    died = weakref.ref(x)
    cpu.relu(x)
    del x
    gc.collect()
    for _ in range(100):  # a thread may not have put the job aside yet
        if died() is None:
            break
        time.sleep(0.01)
    assert died() is None


def test_count_is_at_least_one():
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        threads.set_count(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    threads.set_count(2)
    x = random(400, 1000)
    expected = cpu.relu(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(cpu.relu(x), expected) else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits for threads that it does not have")
    assert ended[1] == 0


def test_blas_gets_its_threads_back_when_the_last_user_leaves():
    libraries, _ = blas._libraries()
    before = [library.get_num_threads() for library in libraries]
    entered, leave = threading.Event(), threading.Event()

    def other():
        with blas.one_thread():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with blas.one_thread():  # entered first, left first
        thread.start()
        entered.wait(30)
    assert [library.get_num_threads() for library in libraries] == [1] * len(libraries)
    leave.set()
    thread.join()
    assert [library.get_num_threads() for library in libraries] == before


# ---- How many cores there are --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, np.inf),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/hidden/by/the/container\n", {"cpu.max": "50000 100000"}, 0.5),
        (
            "3:cpuset:/\n2:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, np.inf),
        ("1:memory:/\n", {}, np.inf),
    ],
)
def test_quota_of_control_groups(groups, files, expected, tmp_path):
    for name, content in {
        "membership": groups,
        **{f"mount/{name}": content for name, content in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n" if name != "membership" else content)
    assert cores.quota(tmp_path / "membership", tmp_path / "mount") == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cores.quota(tmp_path / "missing", tmp_path) == np.inf
    assert 1 <= cores.usable_cores() <= (os.cpu_count() or 1)


# ---- Compiled code on disk -----------------------------------------------------------------------------------------

PROGRAM = """
import numpy as np
from kernels.cpu import compile, relu
compile.on_compile(lambda name: print("compiling", name))
for dtype in (np.float32, np.float64):
    assert relu(np.array([-1.5, 2.5], dtype)).tolist() == [0, 2.5]
assert compile.seconds() > 0
"""


def start(cache) -> subprocess.Popen:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


linux = pytest.mark.skipif(sys.platform != "linux", reason="the variable that moves the cache is Linux's")


@linux
def test_processes_may_compile_at_once_and_later_ones_need_not(tmp_path):
    for process in [start(tmp_path), start(tmp_path)]:
        assert finish(process)[1] == ""
    assert finish(start(tmp_path)) == ("", "")
    kept = list((tmp_path / "minicnn" / "compiled").iterdir())
    assert len(kept) == 2 and all(path.name.startswith("clip_below-") for path in kept)

    kept[0].write_bytes(kept[0].read_bytes()[:-100])  # damaged: compiled again
    assert finish(start(tmp_path)) == ("compiling clip_below\n", "")
    assert finish(start(tmp_path)) == ("", "")


@linux
def test_a_cache_that_cannot_be_written_costs_one_warning(tmp_path):
    (tmp_path / "minicnn").write_text("a file where the folder should be")
    out, err = finish(start(tmp_path))
    assert out == "compiling clip_below\n" * 2
    assert err.count("UserWarning: compiled kernels cannot be kept for the next run") == 1


def test_code_depends_on_the_sources_of_all_that_it_calls():
    from kernels.cpu import local_normalisation, philox

    called = compile._called(local_normalisation.lrn_rows)
    assert {k.py_func.__name__ for k in called} == {"lrn_rows", "scales", "neighbour_sums"}
    assert {k.py_func.__name__ for k in compile._called(philox.drop)} == {"drop", "philox"}
