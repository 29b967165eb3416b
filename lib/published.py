"""Numbers that others published, as tables: the logs of AWP's authors, and points and transfers around DUCAT."""

from io import StringIO

import pandas as pd

# Accuracies in percent, on test images; robust under the attack of the line. best_epoch: counted from 0. gap: training
# less test. One training, of one seed, a line. A blank is nan.
AWP = """
dataset,  norm, network,         method,  gamma, warmup, attack, best_epoch, best,  best_clean, final, last,  last_clean, gap,  note
cifar10,  Linf, preact_resnet18, pgd,     ,      ,       pgd-20, 102,        52.79, 81.70,      43.75, 44.44, 84.56,      36.3,
cifar10,  Linf, preact_resnet18, pgd+awp, 0.01,  0,      pgd-20, 159,        55.39, 81.18,      54.30, 54.73, 81.11,      ,
cifar10,  L2,   preact_resnet18, pgd,     ,      ,       pgd-20, 103,        69.15, 88.80,      65.26, 65.93, 88.95,      32.8,
cifar10,  L2,   preact_resnet18, pgd+awp, 0.01,  0,      pgd-20, 189,        72.69, 90.11,      71.59, 72.08, 89.71,      ,
cifar100, Linf, preact_resnet18, pgd,     ,      ,       pgd-20, 103,        27.77, 53.48,      20.69, 20.82, 54.61,      50.5,
cifar100, Linf, preact_resnet18, pgd+awp, 0.01,  0,      pgd-20, 198,        30.71, 54.19,      30.11, 30.27, 54.02,      ,
cifar100, L2,   preact_resnet18, pgd,     ,      ,       pgd-20, 102,        41.33, 62.26,      35.51, 35.27, 60.50,      61.7,
cifar100, L2,   preact_resnet18, pgd+awp, 0.01,  0,      pgd-20, 159,        45.60, 64.44,      45.09, 44.66, 64.40,      ,
svhn,     Linf, preact_resnet18, pgd,     ,      ,       pgd-20, 16,         53.36, 89.85,      45.00, 44.49, 89.85,      54.8,
svhn,     Linf, preact_resnet18, pgd+awp, 0.01,  5,      pgd-20, 59,         59.12, 91.76,      57.15, 55.87, 92.59,      ,
svhn,     L2,   preact_resnet18, pgd,     ,      ,       pgd-20, 8,          66.87, 92.96,      65.23, 65.03, 93.25,      35.0,
svhn,     L2,   preact_resnet18, pgd+awp, 0.01,  0,      pgd-20, 35,         72.57, 94.83,      67.98, 67.73, 95.22,      ,
cifar10,  Linf, wide_resnet34,   pgd,     ,      ,       pgd-10, 101,        56.80, 86.07,      48.56, 48.65, 86.55,      49.1, Rice et al.'s log
cifar10,  Linf, wide_resnet34,   pgd+awp, 0.01,  0,      pgd-20, 172,        58.30, 85.41,      57.38, 57.51, 85.17,      ,
"""  # noqa: E501


def awp_logs(dataset: str | None = None) -> pd.DataFrame:
    """Best and last of the trainings in the logs that the authors' repository holds, of one data set or (None) of all.

    READ from these logs (csdongxian/AWP at commit a7acf5d), not from the paper. A row a training, of one seed each:
    dataset, norm, network, method, gamma, warmup (epochs without AWP), attack (the test attack, in steps), best_epoch
    (from 0), best, best_clean (at best), final (last epoch), last and last_clean (mean of the last six epochs), gap
    (mean of the last six epochs: training accuracy under PGD-10 less test accuracy; nan with AWP, where the logs have
    the training accuracy at w + v), fall (best less last) and note. Accuracies in [0, 1]; gamma and warmup are nan
    where the method has none. Best is the epoch of the highest accuracy on the test images, as the author says.

    Two warnings. The training accuracy of the gaps is of augmented images in train mode. And the log of `wide_resnet34`
    without AWP is the one of Rice et al. (2020) with PGD-10, so it is no like-for-like partner of the one with AWP.
    """
    logs = pd.read_csv(StringIO(AWP), skipinitialspace=True, keep_default_na=False, na_values={
        name: [""] for name in ("gamma", "warmup", "gap")})
    rates = ["best", "best_clean", "final", "last", "last_clean", "gap"]
    logs[rates] = (logs[rates].astype(float) / 100).round(6)
    logs.insert(logs.columns.get_loc("note"), "fall", logs.best - logs["last"])
    return logs if dataset is None else logs[logs.dataset == dataset].reset_index(drop=True)


THREAD = "READ: OpenReview thread of the DUCAT paper, sBpYRQOrMn"
SOURCES = {
    "thread": THREAD, "quoted": f"{THREAD}, where its authors quote it",
    "hat": "READ: README of imrahulr/hat at commit 10caeba", "adr": "READ: official README of ADR, arXiv 2305.12118",
    "json": "READ: RobustBench, model_info",
    "relayed": "the abstract of arXiv 2603.29182, as relayed by a secondary text",
}

# Accuracies in percent on test images, Linf. eps in 1/255. A blank is nan. The network of the thread's own rows is
# called ResNet-18 there; the authors' code builds one of as many blocks with bottlenecks, of 26 layers.
DUCAT = """
method,              network,         dataset,       eps,   clean, robust, attack,     extra,                 source
pgd,                 resnet18,        cifar10,       8,     82.92, 46.74,  autoattack, ,                      thread
pgd+ducat,           resnet18,        cifar10,       8,     88.81, 58.61,  autoattack, ,                      thread
pgd+ducat,           resnet18,        cifar10,       8,     88.81, 65.10,  pgd-10,     ,                      thread
pgd,                 resnet18,        cifar10,       8,     82.92, 73.02,  targeted,   ,                      thread
pgd+ducat,           resnet18,        cifar10,       8,     88.81, 70.77,  targeted,   ,                      thread
pgd+ducat,           resnet18,        cifar10,       8,     ,      29.52,  dawa,       ,                      relayed
Wang 2023,           wide_resnet28,   cifar10,       8,     91.12, 63.35,  autoattack, 1M generated images,   thread
Wang 2023 and DUCAT, wide_resnet28,   cifar10,       8,     92.60, 62.74,  autoattack, 1M generated images,   thread
mixup inference,     resnet50,        cifar10,       8,     84.20, 64.50,  pgd-10,     ,                      quoted
SOVR,                not said,        cifar10,       8,     81.90, 49.40,  autoattack, ,                      quoted
KD+SWA,              not said,        cifar10,       8,     84.65, 52.14,  autoattack, ,                      quoted
ReBAT++,             not said,        cifar10,       8,     78.71, 51.49,  autoattack, ,                      quoted
HAT,                 resnet18,        cifar10,       8,     84.90, 49.08,  autoattack, ,                      hat
HAT,                 preact_resnet18, cifar10,       8,     86.86, 57.09,  autoattack, generated images,      hat
HAT,                 preact_resnet18, cifar100,      8,     61.50, 28.88,  autoattack, generated images,      hat
HAT,                 resnet18,        svhn,          8,     92.46, 53.19,  autoattack, ,                      hat
HAT,                 preact_resnet18, tiny_imagenet, 8,     52.60, 18.14,  autoattack, ,                      hat
ADR,                 resnet18,        cifar10,       8,     82.41, 50.39,  autoattack, ,                      adr
ADR+WA,              resnet18,        cifar10,       8,     82.59, 50.86,  autoattack, ,                      adr
ADR+WA+AWP,          resnet18,        cifar10,       8,     83.26, 51.24,  autoattack, ,                      adr
ADR,                 resnet18,        cifar100,      8,     56.10, 26.89,  autoattack, ,                      adr
ADR+WA,              resnet18,        cifar100,      8,     58.30, 27.54,  autoattack, ,                      adr
ADR+WA+AWP,          resnet18,        cifar100,      8,     57.36, 28.52,  autoattack, ,                      adr
ADR,                 resnet18,        tiny_imagenet, 8,     48.19, 19.47,  autoattack, ,                      adr
ADR+WA,              resnet18,        tiny_imagenet, 8,     48.55, 20.21,  autoattack, ,                      adr
ADR+WA+AWP,          resnet18,        tiny_imagenet, 8,     48.27, 20.10,  autoattack, ,                      adr
DAJAT,               resnet18,        cifar10,       8,     85.71, 52.48,  autoattack, ,                      json
OAAT,                resnet18,        cifar10,       8,     80.24, 51.06,  autoattack, ,                      json
Gowal 2021,          preact_resnet18, cifar10,       8,     87.35, 58.63,  autoattack, 100M generated images, json
SCORE,               wide_resnet28,   cifar10,       8,     88.61, 61.04,  autoattack, 1M generated images,   json
LBGAT,               wide_resnet34,   cifar10,       7.905, 88.22, 52.86,  autoattack, ,                      json
LBGAT,               wide_resnet34,   cifar100,      7.905, 60.64, 29.33,  autoattack, ,                      json
"""  # noqa: E501

# Robust accuracy in percent of the network of a column on 10,000 test images of CIFAR-10, changed against the network
# of the line: the numbers of failures in the rebuttal, of which ours is the arithmetic alone.
TRANSFER = """
source,      pgd,   trades, mart,  consistency, pgd+ducat
pgd,         51.31, 58.28,  57.18, 60.41,       61.95
trades,      59.72, 52.55,  57.76, 62.50,       62.95
mart,        62.56, 61.57,  53.70, 65.29,       66.48
consistency, 58.46, 59.05,  58.16, 53.52,       62.04
pgd+ducat,   61.01, 65.74,  64.39, 64.07,       65.23
"""


def ducat_points(dataset: str | None = None) -> pd.DataFrame:
    """Published points of the trade-off around DUCAT, of one data set or (None) of all: clean and robust accuracy.

    A row a network and attack: method (our name for DUCAT and its baseline), network, dataset, norm, eps, clean, robust
    (in [0, 1]), attack, extra (images beyond the data set's own) and source, which says where the row was READ. No row
    was read in the body of the DUCAT paper. Attacks of the rows of DUCAT: autoattack and pgd-10 face the 2C logits, as
    published; targeted knows of the recovery. One row was not read at its source and says so: that of dawa, an adaptive
    attack by others, whose clean accuracy is nan.
    """
    points = pd.read_csv(StringIO(DUCAT), skipinitialspace=True, keep_default_na=False, na_values={"clean": [""]})
    points = points.assign(clean=(points.clean / 100).round(6), robust=(points.robust / 100).round(6),
                           eps=(points.eps / 255).round(6), source=points.source.str.strip().map(SOURCES))
    points.insert(points.columns.get_loc("eps"), "norm", "Linf")
    return points if dataset is None else points[points.dataset == dataset].reset_index(drop=True)


def ducat_drawn(dataset: str, norm: str, eps: float) -> dict[str, dict[str, float]]:
    """Points of `ducat_points` as the argument `read` of `figures.trade_off_map`; empty where there are none.

    Those of this threat model under AutoAttack, without images beyond the data set's own, and not of networks known to
    be larger than those of 18 layers. `later`: under the later attack, where there was one.
    """
    points = ducat_points(dataset)
    points = points[(points.norm == norm) & ((points.eps - eps).abs() < 1e-6)]
    rows = points[(points.attack == "autoattack") & (points.extra == "") & points.network.str.contains("18|not said")]
    later = points[points.attack == "dawa"].set_index("method").robust
    names = {"pgd": "PGD-AT of DUCAT's authors", "pgd+ducat": "DUCAT, as published"}
    return {names.get(r.method, r.method): {"clean": r.clean, "robust": r.robust,
                                            **({"later": later[r.method]} if r.method in later else {})}
            for r in rows.itertuples()}


def ducat_transfer() -> pd.DataFrame:
    """Robust accuracy of each network against examples made on each: columns source, target, accuracy in [0, 1].

    READ: failures counted in the rebuttal, in the OpenReview thread sBpYRQOrMn; the arithmetic is ours. One network a
    method, CIFAR-10. Source and target alike: the white-box attack. The thread does not state the attack; the white-box
    numbers are near those of PGD-10 elsewhere in it.
    """
    table = pd.read_csv(StringIO(TRANSFER), skipinitialspace=True)
    long = table.melt("source", var_name="target", value_name="accuracy")
    return long.assign(accuracy=(long.accuracy / 100).round(6))
