"""Which texts to label next, by what a model reads of them and how sure it is of their classes.

Each strategy returns numbers of texts, the best first, of those that have no label: `is_known` says which have one.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NEIGHBOURS = 20
"""Those of its cluster by which it is told how typical a text is."""

SMALLEST = 5
"""Texts of the smallest cluster in which one is typical of something."""

MOST_CLUSTERS = 500

DOUBTFUL = 10
"""Times as many texts as are picked are those that a model is the least sure of."""


def at_random(is_known: Array, count: int, seed: int = 0) -> list[int]:
    """Return texts by chance: what any other strategy has to beat, and how rows are chosen to be scored."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(~is_known))[:count].tolist()


def typical(features: Array, is_known: Array, count: int, seed: int = 0) -> list[int]:
    """Return the most typical texts of clusters, those of large clusters first that hold no label.

    It is TypiClust (Hacohen et al. 2022): there are as many clusters as there will be labels, and a text is typical
    that is near to its neighbours.

    Args:
        features: Those of all texts, (texts, width).
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    units, clusters = normalize(features), min(int(is_known.sum()) + count, MOST_CLUSTERS)
    kmeans = MiniBatchKMeans(clusters, n_init=1, batch_size=2048, random_state=seed)
    cluster_of, ranked = kmeans.fit_predict(units), []
    for cluster in range(clusters):
        members = np.flatnonzero(cluster_of == cluster)
        if len(members) > 1:
            near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(members) - 1)).fit(units[members])
            members = members[near.kneighbors()[0].mean(axis=1).argsort()]
        is_small, held, unknown = len(members) < SMALLEST, is_known[members].sum(), members[~is_known[members]]
        ranked += [((is_small, held + place, -len(members)), number) for place, number in enumerate(unknown.tolist())]
    return [number for _, number in sorted(ranked)[:count]]


def mixed(features: Array, probabilities: Array, is_known: Array, count: int, seed: int = 0) -> list[int]:
    """Return the texts in the middle of clusters of those whose two likeliest classes are nearly as likely.

    So uncertain texts are not all alike (Zhdanov 2019).

    Args:
        features: Those of all texts, (texts, width).
        probabilities: Those of the classes, (texts, classes).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin
    from sklearn.preprocessing import normalize

    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    doubtful = np.flatnonzero(~is_known)[np.argsort((first - second)[~is_known])][: DOUBTFUL * count]
    units, doubts = normalize(features[doubtful]), (1 + second - first)[doubtful]
    kmeans = KMeans(count, n_init=1, random_state=seed).fit(units, sample_weight=doubts)
    middle = pairwise_distances_argmin(kmeans.cluster_centers_, units)
    return doubtful[list(dict.fromkeys([*middle, *range(len(doubtful))]))[:count]].tolist()
