"""Measurements, each a command that writes a table: `python -m benchmarks --help`.

To be read in this order: `networks.py` (what is measured), `sides.py` (a training step of minicnn and of PyTorch),
`harness.py` (processes, rounds, medians), `probe.py` (the physical limit), `tables.py` (what is written), with
`curve.py`; then a file for each command: `step.py`, `memory.py`, `start.py`, `seeds.py`, `training.py`. PyTorch's
networks are in `torch_networks.py`.
"""
