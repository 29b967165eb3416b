"""Figures from arrays. Functions take numbers and return a matplotlib figure, or draw on the axes `ax` they are given.

They know nothing of files, models or params.yaml. Accuracies are given in [0, 1] and shown in percent.
"""

from lib.figures.classes import (
    agreement,
    class_accuracy,
    class_grids,
    class_scatter,
    classes_along,
    confusions,
    drops,
)
from lib.figures.spine import (
    attack_accuracy,
    landscape_curves,
    landscape_surfaces,
    learning_curves,
    trade_off,
)
from lib.figures.style import MARKERS, OKABE_ITO, WIDTH, images, looks, save, use_style

__all__ = ["MARKERS", "OKABE_ITO", "WIDTH", "agreement", "attack_accuracy", "class_accuracy", "class_grids",
           "class_scatter", "classes_along", "confusions", "drops", "images", "landscape_curves", "landscape_surfaces",
           "learning_curves", "looks", "save", "trade_off", "use_style"]
