"""Many runs: studies and sweeps."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ulmfit_style.config.section import Count, Distinct, Section, Seed, Seeds
from ulmfit_style.errors import nearest


class Study(Section):
    """What `study` compares: arms, each over the same seeds and numbers of labels."""

    name: Annotated[str, Field(pattern=r"^[^\W_][\w.-]*$")]
    """Names the folder of tables and figures, runs/<name>-<study.name>; in no fingerprint."""
    arms: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    """The arms by their names, each with the options that make it: {not adapted: [adapt=none], adapted: []}. They come
    after those that were typed and those in `common`; what concerns a stage that an arm switches off (adapt.epochs=2
    and adapt=none) does not concern it."""
    common: tuple[str, ...] = ()
    """Options of all arms, which come after those that were typed."""
    baseline: str
    """The arm that the others are held against."""
    seeds: Seeds
    """Each draws other labelled rows (task.sample_seed), another head and another order (finetune.seed); all of them
    share one adapted model."""
    labels: Annotated[tuple[Count | Literal["all"], ...], Field(min_length=1), Distinct] | None
    """Numbers of labelled rows: [10, 100, all]; null for those of the task."""
    per_class: bool
    """Whether `labels` are numbers for each class."""
    search: Annotated[dict[str, tuple[Any, ...]], BeforeValidator(lambda search: search or {})]
    """Options with the values that each arm tries before, at each number of labels, in all combinations:
    {finetune.learning_rate: [5e-5, 1e-4]}. What scores best on the validation rows is taken. null: no search. A mapping
    that is typed is merged with the YAML's, so that {} leaves that one as it is."""
    search_seeds: Annotated[tuple[Seed, ...], Distinct]
    """Seeds of that search: none of `seeds`."""
    references: tuple[Literal["linear"], ...]
    """Models that are trained on the same rows, to hold the arms against. linear: one on TF-IDF, one on the frozen
    features of the checkpoint."""
    keep_weights: Literal["best", "all", "none"]
    """Which fine-tuned models stay on the disk: the one that scores best on the validation rows, all, or none. Scores,
    predictions and manifests always do."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.baseline not in self.arms:
            raise ValueError(f"the baseline '{self.baseline}' is no arm{nearest(self.baseline, self.arms)}")
        if self.search and not self.search_seeds:
            raise ValueError("a search needs search_seeds")
        if self.search and set(self.search_seeds) & set(self.seeds):
            raise ValueError("search_seeds should be others than the seeds that are reported")
        return self


class Dimension(Section):
    """One dimension of the space of a sweep: a range, or choices."""

    low: int | float | None = None
    """The lowest value; whole numbers on both ends make a range of whole numbers."""
    high: int | float | None = None
    """The highest value."""
    log: bool = False
    """Whether the logarithm is searched evenly, as is right for rates."""
    step: int | float | None = None
    """The distance between values; null for any value, or for every whole number."""
    choices: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """The values, where it is no range."""
    when: Annotated[dict[str, Any], Field(default_factory=dict)]
    """What dimensions above it must be for this one to count, each a value or a list: {finetune.pooling: concat}."""

    @model_validator(mode="before")
    @classmethod
    def _of_choices(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if self.choices is not None:
            if {self.low, self.high, self.step} != {None} or self.log:
                raise ValueError("has choices, so it has no low, high, step and log")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low should be less than high, and they are {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log goes with a low above 0, and without step")
        return self

    def counts(self, values: dict[str, Any]) -> bool:
        """Tell whether it counts, by the values of those above it that count."""
        wanted = {key: value if isinstance(value, list | tuple) else [value] for key, value in self.when.items()}
        return all(key in values and values[key] in among for key, among in wanted.items())

    def contains(self, value: Any) -> bool:
        """Tell whether a value lies in it."""
        if self.low is None or self.high is None:
            return value in (self.choices or ())
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def extremes(self) -> list[Any]:
        """The ends of a range, or all choices."""
        return [self.low, self.high] if self.choices is None else list(self.choices)

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, 1 if self.step is None else self.step))


def _mapping(value: Any) -> Any:
    """Return a mapping for a name alone."""
    mapping = {"name": value} if isinstance(value, str) else value
    if isinstance(mapping, dict) and not isinstance(mapping.get("name"), str):
        raise ValueError("needs name: {name: ...}")
    return mapping


Named = Annotated[dict[str, Any], BeforeValidator(_mapping)]
"""A name of Optuna's, or a mapping of a name and options."""


class Sweep(Section):
    """What `sweep` searches by Optuna, how, and for how long."""

    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """The options that are searched, each with a range {low: 1e-6, high: 1e-3, log: true} or choices [8, 16, 32]; a
    dimension may count only `when` others have a value."""
    metric: str | None = None
    """The score on the validation rows that trials are ranked by; null for that of the task."""
    sampler: Annotated[Named, Field(default_factory=lambda: {"name": "TPE"})]
    """Optuna's sampler, without its last word: TPE, Random, GP, CmaEs, QMC, BruteForce; or a mapping of its name and
    what it takes: {name: TPE, n_startup_trials: 20}. A seed would have every worker draw the same."""
    pruner: Annotated[Named, Field(default_factory=lambda: {"name": "median"})]
    """What stops a bad trial early. none: nothing. median: it is worse than half of the others were at that point, from
    the sixth trial on. asha (Li et al. 2018), hyperband or another one of Optuna's, without its last word; or a
    mapping: {name: asha, reduction_factor: 2}."""
    measurements: Count = 4
    """Times that a model is scored on the validation rows, evenly spread, the last time at its end: where a trial may
    be stopped."""
    seeds: Seeds = (0,)
    """A trial is one model for each, and its score their mean: each draws other labelled rows (task.sample_seed),
    another head and another order (finetune.seed)."""
    trials: Count | None = 50
    """Trials in all, over all calls and workers; those that were stopped early or failed count too. null: no bound."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours after which a worker begins no new trial; null: no bound."""
    max_failures: Annotated[int, Field(ge=0)] = 5
    """Failed trials that are put up with; with one more the sweep stops."""
    parallel: Count = 1
    """Trials that a worker gives to Hydra's launcher together: for hydra/launcher=joblib or submitit_slurm."""
    storage: str | None = None
    """URL of a database for the trials, as SQLAlchemy writes it: postgresql+psycopg://me@host/sweeps. null: a journal
    in the folder of the sweep. The workers share the folder `runs` either way."""
    keep_weights: Literal["best", "all", "none"] = "best"
    """Which fine-tuned models stay on the disk: those of the best trial, all, or none. Scores and predictions do."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.trials is None and self.max_hours is None:
            raise ValueError("needs trials, max_hours or both")
        for number, (key, dimension) in enumerate(self.space.items()):
            above = list(self.space)[:number]
            for other in [name for name in dimension.when if name not in above]:
                there = f"{nearest(other, above)} (there are: {', '.join(above) or 'none'})"
                raise ValueError(f"{key}: when: no dimension above it is '{other}'{there}")
        return self
