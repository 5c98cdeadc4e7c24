"""What a network, or a few layers, cost: `python -m minicnn.summary`.

profile   runs a network once and watches the tape: a row for every op
cost      counts a row of layers that is written down, such as "conv 3x3 64->64 x3", without running anything
tables    the one and the other as text, several side by side
"""

from minicnn.summary.cost import Cost, cost
from minicnn.summary.profile import Row, profile, stages, total

__all__ = ["Cost", "Row", "cost", "profile", "stages", "total"]
