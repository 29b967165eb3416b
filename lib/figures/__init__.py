"""Figures from arrays. Functions take numbers and return a matplotlib figure, or draw on the axes `ax` they are given.

They know nothing of files, models or params.yaml. Accuracies are given in [0, 1] and shown in percent.
"""

from lib.figures.adaptive import protocol_accuracy, raw_ends
from lib.figures.balance import class_changes, pareto_curves
from lib.figures.bench import sign_agreement, step_bars, step_growth, step_overheads
from lib.figures.classes import agreement, class_accuracy, class_grids, class_scatter, classes_along, confusions, drops
from lib.figures.errors import error_list, error_scatter, less_list
from lib.figures.failures import always_by_class, failing_by_size, transfer_table
from lib.figures.forks import fork_dumbbells, fork_trade_off
from lib.figures.gating import error_curves, gate_lines, gate_pictures, ladder, strength
from lib.figures.landscape import input_surfaces, landscape_curves, landscape_surfaces
from lib.figures.page import class_lines, confusion_map, page, weakest_along
from lib.figures.perturbation import perturbation_sweep, weight_histograms
from lib.figures.removal import homing_examples, homing_rates
from lib.figures.runs import run_differences, run_trade_off
from lib.figures.spine import attack_accuracy, learning_curves
from lib.figures.style import (
    FIXED,
    MARKERS,
    OBJECTIVES,
    OKABE_ITO,
    VARIANTS,
    WIDTH,
    apart,
    bars,
    images,
    label_ends,
    looks,
    percent,
    save,
    use_style,
)
from lib.figures.temperature import sweep_limits, temperature_gradients, temperature_panels, temperature_sweep
from lib.figures.tradeoff import crowd, protocol_pairs, protocol_sweeps, trade_off_map
from lib.figures.trajectory import across_networks, along_training

__all__ = ["FIXED", "MARKERS", "OBJECTIVES", "OKABE_ITO", "VARIANTS", "WIDTH", "across_networks", "agreement",
           "along_training", "always_by_class", "apart", "attack_accuracy", "bars", "class_accuracy", "class_changes",
           "class_grids", "class_lines", "class_scatter", "classes_along", "confusion_map", "confusions", "crowd",
           "drops", "error_curves", "error_list", "error_scatter", "failing_by_size", "fork_dumbbells",
           "fork_trade_off", "gate_lines", "gate_pictures", "homing_examples", "homing_rates", "images",
           "input_surfaces", "label_ends", "ladder", "landscape_curves", "landscape_surfaces", "learning_curves",
           "less_list", "looks", "page", "pareto_curves", "percent", "perturbation_sweep", "protocol_accuracy",
           "protocol_pairs", "protocol_sweeps", "raw_ends", "run_differences", "run_trade_off", "save",
           "sign_agreement", "step_bars", "step_growth", "step_overheads", "strength", "sweep_limits",
           "temperature_gradients", "temperature_panels", "temperature_sweep", "trade_off_map", "transfer_table",
           "use_style", "weakest_along", "weight_histograms"]
