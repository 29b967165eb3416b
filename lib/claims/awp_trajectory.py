"""Claims of the AWP paper (Wu et al., NeurIPS 2020) in the long training of 12_trajectory: sharpness and the gap.

The paper's text was not read: READ is the picture of its Figure 1 in the authors' repository, and the logs there. S and
the gap: `lib.trajectory`. S is of a fixed sample of training images, and its directions are drawn anew for each seed:
an interval over seeds sees both the training and the directions, but not other images.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib import classwise, overfitting, published, stats
from lib.claims.rules import CORRELATION, LOSS, Claim, Evidence, difference, judge
from lib.overfitting import EARLY

COMPARED = ("pgd", "trades", "mart", "pgd+awp")
AT_MOST = 0.01  # of accuracy, lost from best to last


def _sharp_images(evidence: Evidence) -> int:
    """How many training images S is a mean of."""
    table = evidence.studies["sharpness"]
    return int(table[table.split == "train"].images.max())


def _of_seeds(evidence: Evidence, values, *, above: float | None = None, below: float | None = None,
              within: tuple[float, float] = (-np.inf, np.inf)) -> dict:
    """Student's interval over seeds of a value of S for each seed, and its verdict."""
    found = {**stats.over_seeds(values, within=within), "images": _sharp_images(evidence)}
    return {**found, "verdict": judge(found, above=above, below=below)}


def _followed(evidence: Evidence) -> pd.DataFrame:
    """`overfitting.followed` of pgd; one row of nan where it sees no drop."""
    looks = evidence.studies["looks"]
    found = overfitting.followed(looks[looks.method == "pgd"])
    names = ["S_start", "S_drop", "S_later", "S_end", "rank"]
    return found[names] if len(found) else pd.DataFrame([dict.fromkeys(names, np.nan)])


def rises(evidence: Evidence) -> dict:
    """S at the end less S just before the first drop of the learning rate, above 0."""
    found = _followed(evidence)
    return _of_seeds(evidence, found.S_end - found.S_drop, above=0)


def changes_at_the_drop(evidence: Evidence) -> dict:
    """The rise of S after the first drop less its change, up or down, in at least as many epochs before it: above 0."""
    found = _followed(evidence)
    return _of_seeds(evidence, found.S_later - found.S_drop - (found.S_drop - found.S_start).abs(), above=0)


def together_along(evidence: Evidence) -> dict:
    """Rank correlation of S and the gap over the looks at full radius, above 0."""
    return _of_seeds(evidence, _followed(evidence)["rank"], above=0, within=(-1, 1))


def _rows(evidence: Evidence, method: str, attack: str, split: str = "test", checkpoint: str = "last") -> pd.DataFrame:
    """The rows of one method in 12_trajectory, every seed, with a column `hit`."""
    table = evidence.studies["trajectory"]
    rows = table[(table.method == method) & (table.attack == attack) & (table.split == split)
                 & (table.checkpoint == checkpoint)]
    return rows.assign(hit=(rows.label == rows.predicted).astype(float))


def _networks(evidence: Evidence) -> pd.DataFrame:
    """S and gap of the networks compared: a row a seed, columns (value, network)."""
    looks = evidence.studies["looks"]
    found = overfitting.networks(looks[looks.method.isin(COMPARED)])
    return found.pivot(index="seed", columns="network", values=["sharpness", "gap"]).dropna()


def together_across(evidence: Evidence, resamples: int = 2000) -> dict:
    """Rank correlation of S and the gap over the networks, the mean over seeds, above 0.

    The interval is the wider of two at each end: Student's over seeds, and the bootstrap of seeds and of the images,
    training and test, that the gap is of.
    """
    found, draw = _networks(evidence), np.random.default_rng(0)
    values = [classwise.rank_correlation(row.sharpness, row.gap) for _, row in found.iterrows()]
    over = stats.over_seeds(values, within=(-1, 1))
    gaps, images = 0, 0
    for split, sign in (("train", 1), ("test", -1)):
        hits = np.stack([_rows(evidence, "pgd" if n == EARLY else n, evidence.headline, split,
                               "best" if n == EARLY else "last").pivot(index="seed", columns="index", values="hit")
                         .loc[found.index].to_numpy() for n in found.gap.columns])
        n, images = hits.shape[-1], images + hits.shape[-1]
        gaps = gaps + sign * np.einsum("ksn,rn->rsk", hits, draw.multinomial(n, np.full(n, 1 / n), resamples) / n)
    ranks = rankdata(gaps, axis=-1), rankdata(found.sharpness.to_numpy(), axis=-1)
    a, b = (r - r.mean(-1, keepdims=True) for r in ranks)
    each = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1)).clip(1e-12)
    seeds = draw.multinomial(len(found), np.full(len(found), 1 / len(found)), resamples) / len(found)
    low, high = np.quantile((each * seeds).sum(1), [0.025, 0.975])
    over = {**over, "low": np.minimum(over["low"], low), "high": np.maximum(over["high"], high), "images": images}
    return {**over, "verdict": judge(over, above=0)}


def flatter(a: str, b: str):
    """The rule that S of network a is below that of network b."""
    def rule(evidence: Evidence) -> dict:
        """S of a less S of b."""
        sharp = _networks(evidence).sharpness
        return _of_seeds(evidence, sharp[a] - sharp[b], below=0)
    return rule


def keeps_its_best(evidence: Evidence) -> dict:
    """Test accuracy of pgd+awp under the headline attack, at its best checkpoint less at the last: below AT_MOST."""
    found = difference(*(_rows(evidence, "pgd+awp", evidence.headline, checkpoint=c) for c in ("best", "last")))
    return {**found, "verdict": judge(found, below=AT_MOST)}


def smaller_gap(evidence: Evidence) -> dict:
    """The gap of pgd+awp less that of pgd, below 0: what AWP adds on training images less what it adds on test images.

    Each of the two is of pairs, the same images attacked on both networks, and `difference` joins their intervals.
    """
    added = []
    for split in ("train", "test"):
        keys = ["seed", "split", "index"]
        a, b = (_rows(evidence, m, evidence.headline, split).set_index(keys).hit for m in ("pgd+awp", "pgd"))
        added.append((a - b).dropna().reset_index())
    found = difference(*added)
    return {**found, "verdict": judge(found, below=0)}


def more_robust(attack: str | None = None):
    """The rule that pgd+awp is more accurate than pgd on test images under an attack (None: the headline attack)."""
    def rule(evidence: Evidence) -> dict:
        """Accuracy of pgd+awp less that of pgd, at the last epoch."""
        found = difference(*(_rows(evidence, m, attack or evidence.headline) for m in ("pgd+awp", "pgd")))
        return {**found, "verdict": judge(found, above=0)}
    return rule


def early_is_less_robust(evidence: Evidence) -> dict:
    """Test accuracy of pgd at the checkpoint best less that of pgd+awp at the last, headline attack: below 0."""
    found = difference(_rows(evidence, "pgd", evidence.headline, checkpoint="best"),
                       _rows(evidence, "pgd+awp", evidence.headline))
    return {**found, "verdict": judge(found, below=0)}


def _falls() -> str:
    """What pgd+awp loses from best to last in the authors' logs of CIFAR, in points."""
    logs = published.awp_logs()
    falls = 100 * logs.fall[(logs.method == "pgd+awp") & logs.dataset.str.startswith("cifar")]
    return f"{falls.min():.2g} to {falls.max():.2g}"


PICTURE = "READ: the picture of the paper's Figure 1 in the authors' repository"
LOGS = "READ: the authors' logs"
BOTH, PAIR = ("looks", "sharpness"), ("pgd", "pgd+awp")
CLAIMS = [
    Claim("A1a", "Along pgd training the landscape is sharper at the end than before the first drop of the learning "
          "rate", f"{PICTURE}; that S measures it is ours", "trajectory", ("pgd",), rises, BOTH, unit=LOSS),
    Claim("A1b", "Sharpness changes more after the first drop of the learning rate than in as many epochs before it",
          f"{PICTURE}; S and the epochs compared are ours", "trajectory", ("pgd",), changes_at_the_drop, BOTH,
          unit=LOSS),
    Claim("A1c", "Along pgd training sharpness and the robust generalisation gap go together: a rank correlation above "
          "0 over the looks", f"{PICTURE}; the rank correlation is ours", "trajectory", ("pgd",), together_along, BOTH,
          unit=CORRELATION),
    Claim("A2", "Networks with a sharper landscape have a larger robust generalisation gap: a rank correlation above 0 "
          f"over {', '.join(COMPARED)} and early stopping",
          f"{PICTURE}, which has RST in place of AWP; the rank correlation is ours", "networks", COMPARED,
          together_across, ("looks", "trajectory"), unit=CORRELATION),
    Claim("A4a", "At the last epoch the landscape of pgd+awp is flatter than that of pgd",
          "ours; recalled of the paper", "networks", PAIR, flatter("pgd+awp", "pgd"), BOTH, unit=LOSS),
    Claim("A4b", "From its best checkpoint to the last, pgd+awp loses less than 1 point of robust test accuracy",
          f"{LOGS}: it loses {_falls()} points on CIFAR, from the best epoch on test images; the threshold is ours",
          "best and last", ("pgd+awp",), keeps_its_best, ("trajectory",)),
    Claim("A4c", "At the last epoch the robust generalisation gap of pgd+awp is smaller than that of pgd",
          "ours; recalled of the paper", "networks", PAIR, smaller_gap, ("trajectory",)),
    Claim("A5t", "In the long training pgd+awp ends more robust than pgd under the headline attack",
          f"{LOGS}, for PGD-20 in the last six epochs", "best and last", PAIR, more_robust(), ("trajectory",)),
    Claim("A5t-strong", "In the long training pgd+awp ends more robust than pgd under the strong attack",
          "ours: A5t under a stronger attack", "best and last", PAIR, more_robust("strong"), ("trajectory",)),
    Claim("A9a", "Early stopping of pgd leaves a flatter landscape than pgd+awp has at the last epoch",
          "ours; in the picture of Figure 1 early stopping is flattest, of five networks without AWP", "networks",
          COMPARED, flatter(EARLY, "pgd+awp"), BOTH, unit=LOSS),
    Claim("A9b", "Early stopping of pgd is less robust than pgd+awp at the last epoch",
          f"{LOGS}: best epoch of pgd against last six of pgd+awp", "best and last", PAIR, early_is_less_robust,
          ("trajectory",)),
]
