"""What class accuracies and confusions say: which classes are weak, what they are taken for, and who agrees on it.

Functions of arrays from per-sample tables (`hits`, `said`); they know nothing of models and files. An estimate is a
dictionary with mean, low and high, a 95 % interval over test images; seeds stand side by side and are drawn together.
"""

from lib.classwise.agreement import consistency, rank_correlation
from lib.classwise.classes import correlation, discrepancy, last_epochs
from lib.classwise.confusion import confound, over_images, symmetry, within_groups
from lib.classwise.gain import GAIN, drops, gain
from lib.classwise.resample import by_class, halves, hits, interval, resampled, said

__all__ = ["GAIN", "by_class", "confound", "consistency", "correlation", "discrepancy", "drops", "gain", "halves",
           "hits", "interval", "last_epochs", "over_images", "rank_correlation", "resampled", "said", "symmetry",
           "within_groups"]
