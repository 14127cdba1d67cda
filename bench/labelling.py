"""What `select` is worth: labels are bought one after another, by each strategy, and scored on rows kept apart.

For example: python bench/labelling.py --steps 20,50,100,200 --seeds 0,1,2,3,4 task=rotten_tomatoes

The labels of the training rows are shown when a strategy picks a row. After each step a regression on frozen features,
that of `finetune=few_labels`, is scored. Beside the strategies of `select` it has those that lost to them. It prints
the mean score of each, and what it has more than chance, paired by seeds; one line a run goes to labelling.jsonl in
runs/<name>/. Features take a minute, the rest seconds a run; with `--pool` a part of the training rows is looked at.
"""

import argparse
import json
import sys
from collections.abc import Callable

import numpy as np

from ulmfit_style import chain
from ulmfit_style.cli.compose import compose
from ulmfit_style.data import labelled
from ulmfit_style.data.rows import position
from ulmfit_style.errors import UserError
from ulmfit_style.experiments import select
from ulmfit_style.experiments.select import Array
from ulmfit_style.stages import references
from ulmfit_style.stages.table import resolve
from ulmfit_style.tasks.text_classification import TextClassification

Strategy = Callable[[Array, Array | None, Array, int, int], list[int]]
"""Takes features, probabilities if there is a model, which rows have labels, how many are wanted, and a seed."""


def mixed(features: Array, probabilities: Array | None, is_known: Array, count: int, seed: int) -> list[int]:
    """What `select` does when it has a model."""
    assert probabilities is not None
    return select.mixed(features, probabilities, is_known, count, seed)


def by_chance(features: Array, probabilities: Array | None, is_known: Array, count: int, seed: int) -> list[int]:
    """What all others are compared with."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(~is_known))[:count].tolist()


def typical(features: Array, probabilities: Array | None, is_known: Array, count: int, seed: int) -> list[int]:
    """TypiClust at every step (Hacohen et al. 2022)."""
    return select.typical(features, is_known, count, seed)


def margin(features: Array, probabilities: Array | None, is_known: Array, count: int, seed: int) -> list[int]:
    """Those between whose two likeliest classes the model hesitates most; at first chance."""
    if probabilities is None:
        return by_chance(features, probabilities, is_known, count, seed)
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    order = np.argsort(first - second)
    return order[~is_known[order]][:count].tolist()


def badge(features: Array, probabilities: Array | None, is_known: Array, count: int, seed: int) -> list[int]:
    """BADGE (Ash et al. 2020): k-means++ over the gradients of the last layer; at first over the features."""
    chance, units = (
        np.random.default_rng(seed + int(is_known.sum())),
        features / np.linalg.norm(features, axis=1)[:, None],
    )
    blame = np.ones((len(units), 1))
    if probabilities is not None:
        blame = probabilities.copy()
        blame[np.arange(len(blame)), blame.argmax(axis=1)] -= 1
    squares, picked, distances = (blame**2).sum(axis=1), list[int](), np.where(is_known, 0.0, 1.0)
    for _ in range(count):
        picked.append(int(chance.choice(len(units), p=distances / distances.sum())))
        products = (blame @ blame[picked[-1]]) * (units @ units[picked[-1]])
        new = np.maximum(squares + squares[picked[-1]] - 2 * products, 1e-12)
        distances = np.where(is_known, 0, new if len(picked) == 1 else np.minimum(distances, new))
        distances[picked] = 0
    return picked


def first_typical(then: Strategy) -> Strategy:
    """TypiClust for the first step, and another strategy for the others."""

    def picked(features: Array, probabilities: Array | None, is_known: Array, count: int, seed: int) -> list[int]:
        if probabilities is None:
            return select.typical(features, is_known, count, seed)
        return then(features, probabilities, is_known, count, seed)

    return picked


STRATEGIES: dict[str, Strategy] = {
    "random": by_chance,
    "margin": margin,
    "badge": badge,
    "typical": typical,
    "typical, then margin": first_typical(margin),
    "typical, then badge": first_typical(badge),
    "typical, then mixed (auto)": first_typical(mixed),
}


def main(arguments: list[str]) -> None:
    """Simulate the labelling of a task's training rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", default="20,50,100,200", help="how many labels there are after each step")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument(
        "--split", choices=("validation", "test"), default="validation", help="the rows that are scored"
    )
    parser.add_argument("--pool", type=int, help="at most so many training rows, by chance; by default all")
    options, overrides = parser.parse_known_args(arguments)
    resolved = resolve(compose(overrides))
    task = resolved.task
    if not isinstance(task, TextClassification) or task.text_pair is not None:
        raise UserError("labels of single texts are simulated: give a text_classification task without text_pair")
    rows = labelled.load(task.unsampled().model_copy(update={"folds": 0}))
    pool = sorted(rows.pool, key=lambda row: position(0, "\0".join([str(row.number), *task.texts(row)])))[
        : options.pool
    ]
    scored = rows.split(options.split)
    chain.quiet_libraries()
    every = [*pool, *scored]
    features = references.features_of(resolved, [task.texts(row)[0] for row in every])[1]
    right = np.array([task.target(row) for row in every])
    steps, seeds = ([int(number) for number in given.split(",")] for given in (options.steps, options.seeds))
    print(f"{len(pool):,} texts to label, {len(scored):,} {options.split} rows, {len(rows.classes)} classes")
    folder = resolved.config.runs / resolved.config.name
    folder.mkdir(parents=True, exist_ok=True)
    scores: dict[str, list[list[float]]] = {}
    with (folder / "labelling.jsonl").open("a", encoding="utf-8") as file:
        for name, strategy in STRATEGIES.items():
            scores[name] = [simulate(features, right, len(pool), steps, strategy, seed) for seed in seeds]
            for seed, curve in zip(seeds, scores[name], strict=True):
                run = {"strategy": name, "seed": seed, "split": options.split, "steps": steps, "accuracy": curve}
                file.write(json.dumps(run) + "\n")
            show(name, 100 * np.array(scores[name]), 100 * np.array(scores["random"]))


def simulate(features: Array, right: Array, pool: int, steps: list[int], strategy: Strategy, seed: int) -> list[float]:
    """Return the score after each step."""
    is_known, probabilities, curve = np.zeros(pool, dtype=bool), None, []
    for step in steps:
        picked = strategy(features[:pool], probabilities, is_known, step - int(is_known.sum()), seed)
        is_known[picked] = True
        known = np.flatnonzero(is_known)
        inputs, regression = select.regression_of(features, right[known].tolist())
        predicted = regression.fit(inputs[known], right[known]).predict_proba(inputs)
        probabilities = predicted[:pool]
        curve.append(float((regression.classes_[predicted[pool:].argmax(axis=1)] == right[pool:]).mean()))
    return curve


def show(name: str, ours: Array, chance: Array) -> None:
    """Print the scores of a strategy, and what they are more than those of chance, with the deviation over seeds."""
    more = ours - chance
    deviation = more.mean(axis=1).std(ddof=1) if len(more) > 1 else 0.0
    each = ", ".join(
        f"{score:.1f} ({gain:+.1f})" for score, gain in zip(ours.mean(axis=0), more.mean(axis=0), strict=True)
    )
    print(f"{name}: {each}; on average {more.mean():+.1f} +- {deviation:.1f}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"bench/labelling.py: {error}")
