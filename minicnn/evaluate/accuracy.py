"""Right or wrong: top-k accuracy with its interval, accuracy by class, confusions."""

from __future__ import annotations

import math

import numpy as np

LISTED = 10  # classes and confusions in the report
Z = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


def top(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> int:
    """For how many images (N,) the label is among the `k` classes of the highest scores (N, classes)."""
    return int((_order(scores)[:, :k] == labels[:, None]).any(axis=1).sum())


def _order(scores: np.ndarray) -> np.ndarray:
    """The classes of each image (N, classes), the likeliest first; of equals the one of the lower number."""
    return np.argsort(-scores, axis=1, kind="stable")


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, of which `right` of `count` images have been a sample: (low, high).

    The accuracies p whose own spread √(p(1 − p)/n) makes the measured one no farther off than 1.96 of it. Unlike
    ± 1.96 times the measured spread it does not leave [0, 1], nor shrink to nothing where everything is right.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"wilson: needs 0 <= right <= count and count >= 1, got {right} of {count}")
    p, z2 = right / count, Z**2 / count
    middle = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(p * (1 - p) * z2 + z2**2 / 4) / (1 + z2)
    return (middle - half if right else 0.0), (middle + half if right < count else 1.0)


def report(scores: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """Top-1, top-5, accuracy by class and the most frequent confusions, as text.

    scores (N, classes): logits or probabilities; labels (N,).
    """
    lines = []
    for k in (1, 5):
        if k < len(classes):
            right = top(scores, labels, k)
            low, high = wilson(right, len(labels))
            share = right / len(labels)
            lines.append(
                f"top-{k} accuracy {share:.4f} ({right} of {len(labels)}), 95% interval {low:.4f} to {high:.4f}"
            )

    confusion = np.zeros((len(classes), len(classes)), int)  # [true class, class said]
    np.add.at(confusion, (labels, _order(scores)[:, 0]), 1)
    by_class = sorted((row[i] / row.sum(), classes[i], row.sum()) for i, row in enumerate(confusion) if row.any())
    width = max(map(len, classes))
    lines += ["", f"accuracy by class, lowest first{_of(len(by_class))}:"]
    lines += [f"  {name:{width}}  {accuracy:.3f} of {count}" for accuracy, name, count in by_class[:LISTED]]

    np.fill_diagonal(confusion, 0)
    pairs = sorted(((n, i, j) for (i, j), n in np.ndenumerate(confusion) if n), key=lambda p: (-p[0], p[1], p[2]))
    lines += ["", f"confusions, most frequent first{_of(len(pairs))}:"]
    lines += [f"  {n:4} × {classes[i]} taken for {classes[j]}" for n, i, j in pairs[:LISTED]]
    return "\n".join(lines)


def _of(count: int) -> str:
    return f" ({LISTED} of {count})" if count > LISTED else ""
