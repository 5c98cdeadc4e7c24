"""Generators of LLVM IR: the few inner loops that must stay in registers, which no compiler arranges by itself.

Read microkernel.py first, then transform.py; emit.py holds the dozen instructions that both are written in.
"""
