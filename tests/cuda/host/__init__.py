"""CUDA without a GPU: `.cu` files compiled with g++ and run on the CPU, and CuPy itself made to do the same.

include/, block.cpp    what CUDA C++ means to g++, and how the threads of a block take turns
build.py, module.py    compile a source, launch its kernels on NumPy arrays
"""
