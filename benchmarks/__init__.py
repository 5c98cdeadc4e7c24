"""Measurements, each a command that writes a table: `python -m benchmarks --help`.

To be read in this order: `networks.py` (what is measured), `sides.py` (a training step of minicnn and of PyTorch),
`harness.py` (processes, rounds, medians), `probe.py` (the physical limit), `tables.py` (what is written); then a file
per command: `step.py`, `memory.py`, `training.py`, `seeds.py`. PyTorch's networks are in `torch_networks.py`.
"""
