"""The sections of params.yaml: what each value means, and its type."""

from dataclasses import dataclass

from lib.params import ConfigError, known


@dataclass(frozen=True)
class Data:
    """Which images are used, in what form, and how they are split (`lib.sources.splits`).

    source: the data set that is read, None for that of the run's name. classes, without, limit, fraction: which images;
    validation: the share of the training images that chooses the checkpoint; seed of these choices. size: pixels of a
    side, None for the images as they are. stream: read from disk in batches.
    """

    source: str | None
    classes: int | list | None
    without: list
    limit: int | None
    fraction: float
    validation: float
    seed: int
    size: int | None
    stream: bool


@dataclass(frozen=True)
class Threat:
    """The threat model: `norm` Linf or L2, `eps` the radius for images in [0, 1].

    Training may give each image its own radius: `eps` is then a tensor (N, 1, 1, 1), which is not checked here.
    """

    norm: str
    eps: float

    def __post_init__(self):
        known("norm", self.norm, ("Linf", "L2"), "threat.norm of params.yaml")
        if isinstance(self.eps, float) and (not 0 <= self.eps or self.norm == "Linf" and self.eps > 1):
            raise ConfigError(f"threat.eps in params.yaml is {self.eps:g}: images lie in [0, 1], so a radius in Linf "
                              "is at most 1, such as 8/255, and none is below 0")


@dataclass(frozen=True)
class Model:
    """The network: a name of `lib.models.NETWORKS`, its width in channels and an activation without knobs."""

    name: str
    width: int
    activation: str


@dataclass(frozen=True)
class Train:
    """SGD and its schedule, and the training adversary: `steps` of `step_size` x eps.

    trace: how many epochs lie between two looks at the test images, which change nothing (`lib.train.Trained`).
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    augment: list
    steps: int
    step_size: float
    trace: int


@dataclass(frozen=True)
class Evaluate:
    """The main table's attack, the tier of the strongest, how many training images are attacked, how many at once."""

    headline: str
    tier: str
    training_images: int
    batch_size: int


@dataclass(frozen=True)
class Landscape:
    """Weight-space landscape: PGD of `steps` x `step_size` anew at each of the points of curves and surfaces."""

    images: int
    steps: int
    step_size: float
    span: float
    points: int
    directions: int
    surface_points: int


@dataclass(frozen=True)
class Flatness:
    """Average- and worst-case flatness (Stutz et al. 2021), see `lib.flatness`: the largest ||v_l|| / ||w_l|| of each.

    draws: random v of the first; restarts of the second; steps: of the attack in both, of the search in the second.
    """

    average: float
    draws: int
    worst: float
    steps: int
    restarts: int


@dataclass(frozen=True)
class Trajectory:
    """Long trainings on few images, in which the robust generalisation gap opens (`lib.trajectory`).

    fraction: the share of each class's training images; epochs, schedule: as in `Train`. every: how many epochs lie
    between two looks at sharpness and gap; points: of each curve.
    """

    fraction: float
    epochs: int
    schedule: str
    every: int
    points: int


@dataclass(frozen=True)
class Perturbation:
    """What is tried of weight perturbation (`lib.perturbation`), in trainings as `Trajectory` says, with one `warmup`.

    adversarial, random: values of gamma in either direction. steps, alternations: values of K2 and A, at `gamma`.
    """

    adversarial: list
    random: list
    gamma: float
    steps: list
    alternations: list
    warmup: float


@dataclass(frozen=True)
class Removal:
    """The removal experiment: how many classes are left out, one at a time (`lib.removal`)."""

    classes: int


@dataclass(frozen=True)
class Temperature:
    """The sweep of Temperature-PGD: the values of 1/T, each with `steps` of `step_size` x eps."""

    inverse: list
    steps: int
    step_size: float


@dataclass(frozen=True)
class Balance:
    """What is given to the vulnerable classes: the strengths of `balanced` (trained) and of `offset` (fitted)."""

    balanced: list
    offset: list


@dataclass(frozen=True)
class Adaptive:
    """What a classifier is attacked with that may be one of C classes and their dummies (`lib.adaptive`).

    steps, restarts, step_size (in eps): of attacks along gradients. many steps and radii (in eps): along which accuracy
    has to fall. queries: of attacks without gradients; decisions: images for the one that sees labels only.
    """

    steps: int
    restarts: int
    step_size: float
    many: list
    radii: list
    queries: int
    decisions: int


@dataclass(frozen=True)
class Forks:
    """Continuations of one trunk (`lib.forks`): values of `ducat`'s knobs; `radii`, in eps, without dummies."""

    w_benign: list
    w_adv: list
    start: list
    adversary: list
    radii: list


@dataclass(frozen=True)
class Failures:
    """Always-failing images (`lib.failures`): `networks` of one method as control; PGD of `steps` x `step_size`."""

    networks: int
    steps: int
    step_size: float


@dataclass(frozen=True)
class Activations:
    """Networks of several activations (`lib.gating.networks`), `variants` of Sparta; `radii` (eps), `many`: of attacks.
    """

    compared: list[str]
    variants: dict
    radii: list[float]
    many: list[int]


@dataclass(frozen=True)
class Gates:
    """A look at trained gates (`lib.gating.gates`) on test images, and how often the least radius is halved."""

    images: int
    pictures: int
    halvings: int


@dataclass(frozen=True)
class Transplant:
    """Trained and fixed activations elsewhere (`lib.gating.transplant`).

    networks: each the source of each other. sets: data set -> in which numbers of `Train` it differs, `limit`, as in
    `Data`, and `eps`, as in `Threat`; `halves`: from one half of the classes to the other.
    """

    networks: list[str]
    sets: dict


@dataclass(frozen=True)
class Compute:
    """Where and how to compute, see params.yaml and `lib.compute`."""

    device: str
    precision: str
    memory_format: str
    compile: bool | str
    deterministic: bool | str
    threads: int
    workers: int
    processes: int


SCHEMA = {kind.__name__.lower(): kind for kind in (
    Data, Threat, Model, Train, Evaluate, Landscape, Flatness, Trajectory, Perturbation, Removal, Temperature,
    Balance, Adaptive, Forks, Failures, Activations, Gates, Transplant, Compute)}
