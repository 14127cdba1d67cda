"""Which texts to label next, by what a model reads of them and how sure it is of their classes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ulmfit_style.errors import UserError

Array = np.ndarray[Any, Any]

NEIGHBOURS = 20
"""Those of its cluster by which it is told how typical a text is."""

SMALLEST = 5
"""Texts of the smallest cluster in which one is typical of something."""

MOST_CLUSTERS = 500


class Candidates(NamedTuple):
    """Texts by their numbers, some of which have labels."""

    features: Array
    """(texts, width)"""
    known: frozenset[int]
    """Those that have labels."""
    probabilities: Array | None
    """Those of the classes, (texts, classes); None where no model tells them."""
    seed: int

    def unknown(self, order: Array) -> list[int]:
        """Return numbers of texts in an order, without those that have labels."""
        return [number for number in order.tolist() if number not in self.known]


def typical(texts: Candidates, count: int) -> list[int]:
    """Return the most typical texts of clusters, those of large clusters first that hold no label.

    It is TypiClust (Hacohen et al. 2022): there are as many clusters as there will be labels, and a text is typical
    that is near to its neighbours.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    units, clusters = normalize(texts.features), min(len(texts.known) + count, MOST_CLUSTERS)
    kmeans = MiniBatchKMeans(clusters, n_init=1, batch_size=2048, random_state=texts.seed)
    cluster_of = kmeans.fit_predict(units)
    sizes, held, left = np.bincount(cluster_of, minlength=clusters).tolist(), [], []
    for cluster in range(clusters):
        members = np.flatnonzero(cluster_of == cluster)
        if len(members) > 1:
            near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(members) - 1)).fit(units[members])
            members = members[np.argsort(near.kneighbors()[0].mean(axis=1))]
        left.append(texts.unknown(members))
        held.append(len(members) - len(left[-1]))
    picked: list[int] = []
    while len(picked) < count:
        best = min(
            (cluster for cluster in range(clusters) if left[cluster]),
            key=lambda cluster: (sizes[cluster] < SMALLEST, held[cluster], -sizes[cluster]),
        )
        picked.append(left[best].pop(0))
        held[best] += 1
    return picked


def uncertain(texts: Candidates, count: int) -> list[int]:
    """Return the texts whose two likeliest classes have the nearest probabilities."""
    if texts.probabilities is None:
        raise UserError("select.strategy=uncertain: there is no model of single labels yet; at first take typical")
    second, first = np.sort(texts.probabilities, axis=1)[:, -2:].T
    return texts.unknown(np.argsort(first - second))[:count]


def random(texts: Candidates, count: int) -> list[int]:
    """Return texts by chance."""
    return texts.unknown(np.random.default_rng(texts.seed).permutation(len(texts.features)))[:count]


STRATEGIES: Mapping[str, Callable[[Candidates, int], list[int]]] = {
    "typical": typical,
    "uncertain": uncertain,
    "random": random,
}


def best(texts: Candidates) -> str:
    """Return the strategy that was the best in simulations (bench/labelling.py)."""
    return "typical" if texts.probabilities is None else "uncertain"
