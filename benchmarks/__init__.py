"""Measurements, each a command that writes a table: `python -m benchmarks --help`.

To be read in this order: `networks.py` (what is measured), `sides.py` (what each side does with them),
`harness.py` (processes, rounds, medians), `probe.py` (the physical limit), `tables.py` (what is written); then a file
for each command: `step.py`, `ops.py` (with `kernel_cases.py`, `minicnn_kernels.py`, `torch_kernels.py`), `scaling.py`
(with `overhead.py`), `accuracy.py` (with `gradients.py`, `exact_training.py`),
`memory.py`, `start.py`, `seeds.py`, `training.py`, `cuda_model.py` (with
`launches.py`, `hollow.py`). PyTorch's networks are in `torch_networks.py`.
"""
