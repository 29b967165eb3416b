"""What the authors of AWP published as logs: the best and the last accuracies of their trainings, as one table."""

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
