"""From where to where activations are transplanted: to another network, or to other images.

Of a direction, the *source* is where the activations are trained, the *target* where they are used.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import permutations

import torch

from lib import data, methods, models, sources
from lib.config import Config, Data, Threat, Train
from lib.data import Dataset, Files, Images
from lib.params import ConfigError, known, typed
from lib.sources import fetch

NETWORK, IMAGES = "network", "images"  # kinds of a direction
HALVES = "halves"
SEED_STEP = 1000  # see `between_images`
WHERE = "transplant.sets.{} of params.yaml"


@dataclass(frozen=True)
class End:
    """One end of a direction: its name in tables, the numbers of its trainings, and its images."""

    name: str
    config: Config
    images: Dataset


@dataclass(frozen=True)
class Direction:
    """A name, a kind (NETWORK or IMAGES), and the two ends."""

    name: str
    kind: str
    source: End
    target: End


def directions(config: Config, images: Dataset, device: torch.device,
               log: Callable[[str], None] = print) -> list[Direction]:
    """All directions of a run, whose images lie on `device`.

    Raises ConfigError for a method with add-ons or without an adversary, and for what `between_networks` and
    `between_images` refuse.
    """
    if "+" in config.method or methods.build(config).attack is None:
        raise ConfigError(f"studies.transplant in params.yaml names '{config.method}': name an objective with an "
                          "adversary, without add-ons, such as pgd")
    # A look at the test images changes nothing and is not used here.
    config = replace(config, train=replace(config.train, trace=config.train.epochs))
    return [*between_networks(config, images), *between_images(config, images, device, log)]


def between_networks(config: Config, images: Dataset) -> list[Direction]:
    """Every ordered pair of `config.transplant.networks`, on the run's images."""
    for name in config.transplant.networks:
        known("network", name, models.NETWORKS, "transplant.networks of params.yaml")
    ends = [End(name, named(config, name), images) for name in dict.fromkeys(config.transplant.networks)]
    return [Direction(f"{one.name} to {other.name}", NETWORK, one, other) for one, other in permutations(ends, 2)]


def between_images(config: Config, images: Dataset, device: torch.device,
                   log: Callable[[str], None] = print) -> list[Direction]:
    """From the run's images to those of each entry of `config.transplant.sets`, in the first of the networks.

    The source has another seed, SEED_STEP on: source and target are the same network, and with one seed the target
    would begin with the very weights beside which the activations were trained. An entry that is null is left out, and
    so, with a line to `log`, is a set that is not on this machine: nothing is downloaded here.
    """
    if not config.transplant.networks:
        raise ConfigError("transplant.networks in params.yaml is empty: name at least one network")
    here, found = named(config, config.transplant.networks[0]), []
    there = replace(here, seed=config.seed + SEED_STEP)
    for name, entry in config.transplant.sets.items():
        if entry is None:
            continue
        run, limit = differing(here, name, entry)
        if name == HALVES:
            first, second = halves(images)
            found.append(Direction(name, IMAGES, End("first half", there, first), End("second half", run, second)))
        elif name == (config.data.source or config.dataset):
            log(f"{name}: left out, these are the images of the run itself")
        elif (others := prepared(config, images, name, limit, device)) is None:
            log(f"{name}: left out, it is not on this machine (`python -m lib fetch {name}` brings it)")
        else:
            found.append(Direction(name, IMAGES, End(images.name, there, images), End(name, run, others)))
    return found


def named(config: Config, network: str) -> Config:
    """The numbers of the run with another network."""
    return replace(config, model=replace(config.model, name=network))


def differing(config: Config, name: str, entry: dict) -> tuple[Config, int | None]:
    """The run with the numbers of an entry of `config.transplant.sets`, and how many images a class it wants.

    An entry holds numbers of `Train`, `eps` (the radius at which the target is trained and attacked, since images of
    other contrast bear another) and, unless it is HALVES, `limit`. Raises ConfigError for any other key.
    """
    where, keys = WHERE.format(name), [field.name for field in fields(Train)]
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is {entry!r}: it has to be a mapping of names to values, or null")
    for key in entry:
        known("key", key, [*keys, "eps", *["limit"] * (name != HALVES)], where)

    def laid_over(kind: type, below, names: list[str]):
        """A section with what the entry says of these names."""
        own = {key: entry[key] for key in names if key in entry}
        return kind(**typed(f"transplant.sets.{name}", kind, asdict(below) | own))

    train = laid_over(Train, config.train, keys)
    run = replace(config, train=replace(train, trace=train.epochs), threat=laid_over(Threat, config.threat, ["eps"]))
    return run, laid_over(Data, config.data, ["limit"]).limit


def halves(images: Dataset) -> tuple[Dataset, Dataset]:
    """The first half of the classes and the others, in order, with all their images; labels begin at 0 in both.

    Both are normalised by the statistics of all classes. Raises ConfigError for fewer than four classes.
    """
    count = len(images.classes)
    if count < 4:
        raise ConfigError(f"{WHERE.format(HALVES)}: {images.name} has {count} classes, and two halves need four; "
                          "set it to null")
    return _between(images, 0, count // 2, "first half"), _between(images, count // 2, count, "second half")


def _between(images: Dataset, first: int, end: int, name: str) -> Dataset:
    """The classes from `first` up to, but without, `end`."""
    groups = images.superclasses and images.superclasses[first:end]
    splits = {part: _labelled(getattr(images, part), first, end) for part in data.SPLITS}
    return replace(images, name=f"{images.name}, {name}", classes=images.classes[first:end], superclasses=groups,
                   **splits)


def _labelled(images: Images | Files, first: int, end: int) -> Images | Files:
    """The images of these classes, whose labels begin at 0."""
    keep = (first <= images.y) & (images.y < end)
    rest = {"paths": images.paths[keep.cpu().numpy()]} if isinstance(images, Files) else {"x": images.x[keep]}
    return replace(images, y=images.y[keep] - first, **rest)


def prepared(config: Config, like: Dataset, name: str, limit: int | None, device: torch.device) -> Dataset | None:
    """Images of another set in the form of the run's, or None if that set is not on this machine.

    They are resized, grey ones become three equal channels where the run's are in colour, and they have their own
    statistics. limit: images a class. Raises ConfigError for images that are not square, and for colour in a grey run.
    """
    channels, height, side = like.shape
    if height != side:
        raise ConfigError(f"{WHERE.format(name)}: images of {like.name} are {side} x {height}, and others are resized "
                          "to squares only; set it to null")
    wanted = replace(config.data, source=name, classes=None, without=[], limit=limit, size=side, stream=False)
    try:
        with fetch.offline():
            found = sources.prepare(replace(config, dataset=name, data=wanted), device)
    except fetch.Absent:
        return None
    if found.shape[0] > channels:
        raise ConfigError(f"{WHERE.format(name)}: its images are in colour, those of {like.name} grey; set it to null")
    times = channels // found.shape[0]
    splits = {part: replace(getattr(found, part), x=getattr(found, part).x.repeat(1, times, 1, 1))
              for part in data.SPLITS}
    mean, std = (values * times for values in found.statistics)
    return replace(found, statistics=(mean, std), **splits)
