"""The evaluation of a run, attack after attack, the most telling ones first, so that it may stop at any of them."""

import json
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import alarms, attacks, compute, evaluate, train
from lib.config import Config
from lib.data import Dataset, Files, Images
from lib.evaluate import CLEAN, KEYS
from lib.paper import records
from lib.paper.clock import Clock
from lib.paper.options import Options
from lib.paper.records import Record
from lib.params import known

INSPECTED = 100   # images for the alarms
SAVED_EVERY = 30  # seconds between two savings
WITHOUT_WEIGHTS = "its weights are not here, so the rest of its evaluation is left out; force=true trains it anew"
Piece = tuple[str, str, str, int]  # checkpoint, split, attack, and of how many images (0: of all)


def work(one: Config, options: Options) -> list[Piece]:
    """What is evaluated, in this order: clean and headline attack, the tier, the other attacks, training images."""
    headline, tier = one.evaluate.headline, one.evaluate.tier
    checkpoints = [c for c in reversed(train.CHECKPOINTS) if c in options.checkpoints]
    others = [name for name in one.attacks if name != headline]
    pieces = [(c, "test", name, options.tier_images if name == tier else 0)
              for names in ((CLEAN, headline), (tier,), others) for c in checkpoints for name in names]
    return pieces + [(c, "train", name, 0) for c in checkpoints for name in (CLEAN, headline)]


def left(one: Config, record: Record | None, options: Options) -> list:
    """What there is to do for a run."""
    if record is None:
        return ["training"]
    there = record.table.value_counts(["checkpoint", "split", "attack"]).to_dict()

    def done(piece: Piece) -> bool:
        """Whether as many images as are wanted were attacked."""
        every = there.get((*piece[:2], CLEAN), 0)
        return 0 < min(piece[3] or every, every) <= there.get(piece[:3], 0)

    inspected = {alarm["checkpoint"] for alarm in record.facts["alarms"] or ()}
    alarms_left = options.alarms and not inspected >= set(options.checkpoints)
    return [p for p in work(one, options) if not done(p)] + ["alarms"] * alarms_left


def every_attack(one: Config, device: torch.device) -> dict[str, attacks.Attack | None]:
    """CLEAN, the attacks of params.yaml and the tier by name, computed in the precision of `compute`.

    Whether an image is fooled, and so what the next attack of a tier gets, is always asked in float32.
    """
    def made(name: str, numbers: dict) -> attacks.Attack:
        """An attack that runs in this precision."""
        attack = attacks.from_params(name, numbers, one.threat)

        def fast(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
            """The attack itself."""
            with compute.fast(one.compute, device):
                return attack(model, x, y, generator=generator)

        return fast

    tier = one.evaluate.tier
    known("tier", tier, evaluate.TIERS, "tier=")
    strongest = evaluate.Reference(one) if tier == "final" else evaluate.cascade(
        *(made(name, numbers) for name, numbers in evaluate.TIERS[tier].items()))
    return {CLEAN: None, **{name: made(name, numbers) for name, numbers in one.attacks.items()}, tier: strongest}


def evaluated(one: Config, record: Record, options: Options, images: Dataset, device: torch.device, clock: Clock,
              log: Callable[[str], None]) -> None:
    """Do what is left for a run, and keep it in its record and as stage `attack` does, whatever stops it."""
    pieces = left(one, record, options)
    if not pieces:
        return
    found = train.Trained.load(one.folder("train"))
    if records.weights(found) != record.facts["training"]["weights"]:
        log(WITHOUT_WEIGHTS)
        return
    models = {name: train.model(one, found, name, images, device) for name in options.checkpoints}
    same, saved = len(set(record.facts["training"]["weights"].values())) == 1, time.monotonic()
    found, splits = every_attack(one, device), {"test": images.test,
                                                "train": images.train.first(one.evaluate.training_images)}
    path = one.folder("attack") / "per_sample.csv"
    if path.exists() and len(record.table):
        record.table = pd.read_csv(path)  # of the same pieces, with losses and margins
    try:
        for number, piece in enumerate(pieces, 1):
            if piece == "alarms":
                sounded = _inspect(one, record, models, images, device, same)
                log(f"attack {number}/{len(pieces)}  alarms: {sounded}")
                continue
            clock.start()
            checkpoint, split, name, count = piece
            rows = _copied(record.table, piece) if same else None
            if rows is None:
                rows = _piece(one, models[checkpoint], splits[split].first(count) if count else splits[split], name,
                              found[name], device, clock)
            keys = dict(zip(KEYS, (one.method, one.seed, *piece[:3]), strict=True))
            _add(record, rows.assign(**keys)[[*KEYS, *rows.columns.difference(KEYS, sort=False)]])
            log(f"attack {number}/{len(pieces)}  {checkpoint}, {split}, {name}: "
                f"{(rows.label == rows.predicted).mean():.1%} of {len(rows)} images")
            if time.monotonic() - saved > SAVED_EVERY:
                saved = _save(one, record, options)
    finally:
        if one.evaluate.tier == "final" and found["final"].reports:
            record.facts["autoattack"] = found["final"].reports
        _save(one, record, options)


def _piece(one: Config, model: nn.Module, images: Images | Files, name: str, attack: attacks.Attack | None,
           device: torch.device, clock: Clock) -> pd.DataFrame:
    """One attack on one split, with a look at the clock before each batch."""
    def watched(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """The attack, if there is time for it."""
        clock.step()
        return attack(model, x, y, generator=generator)

    size = len(images) if name == "final" else 500  # AutoAttack cuts its batches itself
    return evaluate.per_sample(model, images, attack and watched, compute.generator(one.seed, device), size)


def _copied(table: pd.DataFrame, piece: Piece) -> pd.DataFrame | None:
    """Where best and last are one network: the rows of the other checkpoint."""
    checkpoint, split, name, count = piece
    rows = table[(table.checkpoint != checkpoint) & (table.split == split) & (table.attack == name)]
    return None if rows.empty or count and len(rows) < count else rows


def _add(record: Record, rows: pd.DataFrame) -> None:
    """Take in the rows of a piece, in place of fewer of the same."""
    old, new = record.table, rows.iloc[0]
    stays = (old.checkpoint != new.checkpoint) | (old.split != new.split) | (old.attack != new.attack)
    record.table = pd.concat([old[stays], rows], ignore_index=True) if stays.any() else rows.reset_index(drop=True)


def _save(one: Config, record: Record, options: Options) -> float:
    """The record, and per_sample.csv in the order in which stage `attack` has it; returns the time."""
    names = [CLEAN, *one.attacks, *evaluate.TIERS]
    order = {piece: i for i, piece in enumerate((c, s, n) for c in train.CHECKPOINTS for s in ("test", "train")
                                                for n in names)}
    if len(record.table):
        place = [order[piece] for piece in zip(record.table.checkpoint, record.table.split, record.table.attack,
                                               strict=True)]
        record.table = record.table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)
        one.folder("attack").mkdir(parents=True, exist_ok=True)
        record.table.to_csv(one.folder("attack") / "per_sample.csv", index=False, float_format="%.5g")
    record.facts["missing"] = [p if isinstance(p, str) else ", ".join(p[:3]) for p in left(one, record, options)]
    record.save(records.place(one))
    if "autoattack" in record.facts:
        (one.folder("attack") / "autoattack.json").write_text(json.dumps(record.facts["autoattack"], indent=1) + "\n")
    return time.monotonic()


def _inspect(one: Config, record: Record, models: dict[str, nn.Module], images: Dataset, device: torch.device,
             same: bool) -> str:
    """The alarms, as 03_attack sounds them: of each network, with the other one, if it is another, for transfer.

    Returns what they say in short.
    """
    x, y = images.test.first(INSPECTED).floats()
    tables = []
    for name in list(models)[:1] if same else models:
        model, twin = models[name], next((models[other] for other in models if other != name and not same), None)
        more = {"APGD": ("white-box", attacks.apgd(model, x, y, threat=one.threat, steps=50,
                                                   generator=compute.generator(one.seed, device)))}
        if one.threat.norm == "Linf":
            more["Square"] = ("black-box", attacks.square(model, x, y, threat=one.threat, queries=200,
                                                          generator=compute.generator(one.seed, device)))
        found = alarms.inspect(model, x, y, threat=one.threat, seed=one.seed, classes=len(images.classes), twin=twin,
                               others=more)
        tables += [alarms.as_table(found).assign(checkpoint=each) for each in (models if same else [name])]
    table = pd.concat(tables, ignore_index=True).assign(method=one.method, seed=one.seed)
    one.folder("attack").mkdir(parents=True, exist_ok=True)
    table.to_csv(one.folder("attack") / "alarms.csv", index=False, float_format="%.5g")
    short = table[["checkpoint", "check", "verdict", "value", "limit", "note"]]
    record.facts["alarms"] = json.loads(short.to_json(orient="records", double_precision=6))
    return ", ".join(short[short.verdict == "ALARM"].checkpoint + " " + short[short.verdict == "ALARM"].check) or "none"
