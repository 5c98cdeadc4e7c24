"""CUDA without a GPU: `.cu` files compiled with g++ and run on the CPU, and CuPy itself made to do the same.

    include/, block.cpp    what CUDA C++ means to g++, and how the threads of a block take turns
    build.py, module.py    compile a source; launch its kernels on NumPy arrays
    hip/, libraries.py     the libraries under CuPy's ROCm wheel, as far as minicnn needs them, on the CPU
    environment.py         unpacks the wheels and makes the libraries: `python -m tests.cuda.host.environment`
    cupy_on_host.py        imports that CuPy, with this compiler in place of its own

It finds wrong numbers, missing and divergent barriers, memory read before it is written or beside its array, arguments
of the wrong kind, NumPy among CuPy arrays, and whoever makes the host wait. It cannot find races between blocks, nor
what depends on a GPU's rounding, speed or asynchrony.
"""
