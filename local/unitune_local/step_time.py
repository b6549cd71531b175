"""The pace of a training's steps, found from the seconds that some of them took.

A step costs something for each micro-batch, for each operation, and for each micro-batch whose
number of tokens is new, since kernels are made for it. Which rows were timed is said elsewhere
(`unitune_local.profile_run`), as is what the pace is for (`unitune_local.cost_model`).

Shapes: S steps, C causes of what they cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from unitune_local.loads import Load
from unitune_local.memory import Shape, step_flops

LEAST_BAND, MOST_BAND = 0.08, 0.4
"""A machine is not steadier from one minute to the next; and of steps that differ by more, what was
measured is still better than a guess."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long steps take.

    Args:
        part_seconds: Of a micro-batch, whatever its size.
        flop_seconds: Of an operation.
        size_seconds: Of a micro-batch whose number of tokens is new, beside that.
        first_step_seconds: Of the first step, beside all that; may be below zero.
        band: By how much of itself the total may be off.
    """

    part_seconds: float
    flop_seconds: float
    size_seconds: float
    first_step_seconds: float
    band: float


def fit_pace(
    loads: Sequence[Load], new: Sequence[int], seconds: Sequence[float], shape: Shape
) -> Pace:
    """Return the pace that explains the seconds of steps best, with the right total.

    The first step, which grows memory, is explained by the others. Relative errors are made small
    (least squares), so that short steps count like long ones; no part of the pace is ever below
    zero, so that more work never takes less time.

    Args:
        loads: Of each step, in their order; two at least.
        new: How many micro-batches of each step have a number of tokens that needs new kernels.
        seconds: That each step took.
        shape: Of the model.
    """
    taken = np.array(seconds)  # (S,)
    parts, flops = zip(*((load.parts, step_flops(shape, load)) for load in loads), strict=True)
    causes = np.array([parts, flops, new], dtype=float).T  # (S, 3)
    costs = least_squares(causes[1:] / taken[1:, None])  # (3,)
    costs *= taken[1:].sum() / (causes[1:] @ costs).sum()
    expected = causes @ costs  # (S,)
    noise = float(np.std(taken[1:] / expected[1:])) / math.sqrt(len(taken) - 1)
    part, flop, size = map(float, costs)
    first = float(taken[0] - expected[0])
    return Pace(part, flop, size, first, band=min(max(LEAST_BAND, 2 * noise), MOST_BAND))


def least_squares(causes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the costs, none below zero, by which causes come nearest to 1 in every row.

    With so few causes, every choice of those that cost anything is tried.

    Args:
        causes: Shape (S, C).

    Returns:
        Shape (C,).
    """
    count = causes.shape[1]
    largest = causes.max(axis=0)  # (C,)
    scale = np.where(largest > 0, largest, 1)
    causes = causes / scale  # operations are many, micro-batches few
    best, least = np.zeros(count), math.inf
    for chosen in product([False, True], repeat=count):
        costs = np.zeros(count)
        costs[list(chosen)] = np.linalg.lstsq(causes[:, chosen], np.ones(len(causes)))[0]
        apart = float(np.square(causes @ costs - 1).sum())
        if costs.min() >= 0 and apart < least:
            best, least = costs, apart
    return best / scale
