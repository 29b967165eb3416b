"""What each figure in results/<profile>/figures shows, how to read it, and the command that draws it again."""

from dataclasses import dataclass

from lib.params import known

WIDER = "at each end the wider one of Student's t over seeds and a bootstrap over seeds and test images"


@dataclass(frozen=True)
class Caption:
    """stage: of dvc.yaml, which draws the figure. text: the caption, true of every data set and profile."""

    stage: str
    text: str


def command(figure: str, profile: str, dataset: str) -> str:
    """The command that draws a figure again, such as 'dvc repro gap@default-digits'.

    figure: a key of CAPTIONS. The profile has to be the one that params.yaml names. The stage writes into its own
    folder, results/<profile>/<stage>/<dataset>, from which stage `report` copies into results/<profile>/figures.
    Raises ConfigError for a figure that does not exist.
    """
    known("figure", figure, CAPTIONS, "lib/captions.py")
    stage = CAPTIONS[figure].stage
    return f"dvc repro {stage}@{profile}" + ("" if stage == "report" else f"-{dataset}")


_OF_REPORT = {
    "attacks": "Accuracy on test images under each attack, from the weakest attack to the strongest on average, and "
               "in the worst case over all attacks. Lines join means over seeds, small dots are the seeds; the "
               "number after a name is the worst case. An attack is worth what it takes off.",
    "learning": "Accuracy on validation images by epoch, on clean images and under the training attack. Lines are "
                "means over seeds, bands the range over seeds. With many methods each has a panel of its own: dotted "
                "clean, solid under attack, and in grey the first adversarial method for comparison.",
    "landscape": "Adversarial loss of training images when the weights move by alpha along a random "
                 "filter-normalised direction. Lines are means over directions and seeds, bands their range; the scale "
                 "is logarithmic. A line that stays low around 0 is a flat weight loss landscape.",
    "surface": "Adversarial loss of training images over the plane of two filter-normalised directions in weight "
               "space, for the first seed. All panels share one logarithmic scale; the cross is the trained network.",
}
_OF_CLASSWISE = {
    "classes": "Accuracy of each class on test images: hollow clean, filled in the worst case over all attacks. "
               "Filled marks are means over seeds with 95 % Wilson intervals for the number of the class's own test "
               "images; small dots are the seeds.",
    "methods": "Accuracy of each class for every method, in percent of the class's test images, mean over seeds: "
               "above on clean images, below in the worst case over all attacks. A column that is dark in every row "
               "is a class that is weak however the network is trained.",
    "along": "Accuracy of each class on test images under the training attack along training, a line a class, mean "
             "over seeds. In colour the classes that are weakest and strongest on average over the shaded last "
             "epochs. Nothing is chosen by these numbers.",
    "norms": "Worst-case accuracy of a class against the norm of its row of the last layer. Small dots are the "
             "seeds, the names stand at means over seeds; r is Pearson's correlation of these means, with Fisher's "
             "95 % interval, whose n is the number of classes.",
    "peak": "How sure the networks are of each class: the variance of an image's class probabilities in percent of "
            "its largest value, mean over the class's test images and over seeds. Above on clean images, below under "
            "the headline attack, where a high number may be certainty of the wrong class.",
}
_OF_RELATIONS = {
    "confusion": "What the test images of each class are taken for under the headline attack, in percent of the "
                 "class, all seeds together. Rows are true classes; shares below 0.5 are blank.",
    "consistency": "Do attacks, and do methods, agree on the weak classes? Spearman's correlation of class "
                   "accuracies on test images, between networks of different seeds, mean over pairs of seeds (with "
                   "one seed, between the same networks). On the framed diagonal only the seed differs, which is the "
                   "most one can see.",
    "gain": "What a stronger attack takes off each class beyond a weaker one, in points of accuracy on test images. "
            "Lines are means over seeds, small dots the seeds; the classes stand from the weakest to the strongest. "
            "A line that falls to the right: the gain comes from the weak classes.",
}
_OF_PAGE = {
    "page": "Questions about classes, one panel each, with the claims that answer them: the verdict, the estimate "
            "and its 95 % interval. Differences of accuracies are fractions, so that 1 is 100 points.",
    "removal": "Test images that an attack sends to one class, shown to networks that were trained without this "
               "class: which share is right? Above the old adversarial examples, below attacked anew; grey are two "
               "controls. Bars: 95 % intervals over images, Wilson's or, where an image counts for several seeds, a "
               "bootstrap.",
    "temperature": "Accuracy on test images under Temperature-PGD at each 1/T, less that under PGD, in points: lower "
                   "is a stronger attack. Lines are means over seeds, dots the seeds, rings the 1/T chosen on "
                   "validation images. The small panels: images whose gradient is zero, and pixels where the "
                   "gradient has the sign of the margin's.",
    "balance": "What it costs to help the weakest class: its accuracy against the mean over classes, both on test "
               "images under the strong attack. A line goes through the strengths of a defence, which stand beside "
               "it, means over seeds; dots are seeds, rings the strengths chosen on validation images. Up and right "
               "is better.",
}
_OF_GAP = {
    "trajectory": "One long training. Left: the loss under attack around the weights at some epochs. Right: accuracy "
                  "under attack on training and on test images, the gap shaded; below, sharpness and the loss of "
                  "test images. Lines are means over seeds, the band of the sharpness the range over seeds and "
                  "directions.",
    "networks": "Do flatter networks have a smaller robust generalisation gap? Left: the loss under attack around "
                "the weights, mean over directions and seeds. Right: sharpness against the gap; small dots are "
                "seeds, large marks means with Student's 95 % intervals over seeds.",
    "perturbation": "What the size gamma of a perturbation of the weights does in training, along the adversarial "
                    "and along a random direction. Bars and bands: Student's 95 % intervals over seeds; dashed: "
                    "training without a perturbation; rings: what seeds chose on validation images.",
    "weights": "Histograms of the weights of the last convolution, for the first seed, trained with perturbations of "
               "several sizes gamma; black is training without one. The number is the standard deviation.",
}
_OF_FAILURES = {
    "overlap": "Share of images on which all networks of a set fail, each under its own attack, by the number of "
               "networks. Small dots are single sets, lines their means; dotted: failures that know nothing of one "
               "another. Different methods are compared with seeds of one method, which is the control.",
    "always": "Share of each class's test images on which the attack always succeeds, and on which it never does, "
              "for one network of each method and for as many seeds of one method. Bars: 95 % Wilson intervals for "
              "the number of the class's test images; dashes: the share if failures within the class were "
              "independent.",
    "transfer": "Accuracy in percent of each network (column) on adversarial examples that were made on another "
                "(row), on test images, mean over seeds. Framed: examples of the network itself, which should be the "
                "strongest. A triangle marks examples that are stronger than these with every seed: a sign of masked "
                "gradients.",
}
_OF_TRADEOFF = {
    "tradeoff": "Clean accuracy against accuracy under all attacks, on test images: left all methods, right the "
                f"crowd, enlarged. Marks are means over seeds with 95 % intervals ({WIDER}). An arrow leads from a "
                "network with dummy classes as attacked in its paper to the same network attacked adaptively; grey "
                "lines are of equal NRR, the harmonic mean of both accuracies. Up and right is better.",
    "protocols": "The same attacks on the logits as published (ring) and on the deployed classifier (dot), on test "
                 "images, mean over seeds; the distance is robustness that is not there. Shaded: the worst case over "
                 f"all attacks of a protocol. Bars: 95 % intervals, {WIDER}.",
    "sweeps": "Accuracy on test images against the radius and the steps of the attack, as published (dashed) and "
              "adaptive (solid). A larger radius has to bring it down to 0, and more steps must not raise it. Lines "
              f"are means over seeds, bands 95 % intervals, {WIDER}.",
    "forks": "Which part of training with dummy classes does what: continuations of one trunk with one thing "
             "changed. Ring: accuracy on test images under the attacks as published; dot: in the worst case of both "
             "protocols. Bars and band: Student's 95 % intervals over seeds. A gain in robustness lies right of the "
             "dashed line.",
}
_OF_GATING = {
    "ladder": "Above: error on test images against the radius of the attack, for activations that differ by one "
              "property each. Below: the change of the error by each property, black where its interval leaves out "
              f"0. Means over seeds with 95 % intervals, {WIDER}.",
    "activations": "Clean error against error under all attacks, on test images, a point an activation, means over "
                   "seeds; lower left is better. Rings: activations that no other beats in both. Bars, drawn for "
                   f"three: 95 % intervals, {WIDER}.",
    "variants": "Clean error, worst-case error, and the latter less that of SiLU, on test images, for Sparta, its "
                f"variants and its controls. Means over seeds with 95 % intervals, {WIDER}; black where the interval "
                "of a difference leaves out 0.",
    "curves": "Error under the training attack by epoch, on validation and on test images, for three activations. "
              "Lines are means over seeds, bands the range over seeds; the number is that of the last epoch.",
    "strength": "Error on test images against the steps and the radius of the attack: it must not fall to the right, "
                f"and has to be flat at many steps. Means over seeds with 95 % intervals, {WIDER}.",
    "gates": "The gate of one channel at some sites, for two images and for the adversarial examples of each "
             "network, in the first seed, and the change. Yellow is open, dark is shut.",
    "mechanism": "What gates do along the network: how much g and the gate vary, how many gates an attack moves, and "
                 "how far it moves the features. Means over seeds with Student's 95 % intervals over seeds.",
    "ablations": "Error on test images of trained networks whose g is averaged over positions, replaced by its mean "
                 "over images, or both, each attacked anew. Hollow clean, filled in the worst case; right, the "
                 f"latter less that of the network as trained. Means over seeds with 95 % intervals, {WIDER}.",
    "transplant": "Error on test images of networks with an activation that was trained elsewhere, a block for each "
                  "source and target: hollow clean, filled in the worst case. Right: the latter less that of the "
                  "fixed transplant, which is better than what lies right of 0. Means over seeds, 95 % intervals: "
                  f"{WIDER}.",
}
_STAGES = {"report": _OF_REPORT, "classwise": _OF_CLASSWISE, "relations": _OF_RELATIONS, "page": _OF_PAGE,
           "gap": _OF_GAP, "failures": _OF_FAILURES, "tradeoff": _OF_TRADEOFF, "gating": _OF_GATING}
CAPTIONS = {name: Caption(stage, text) for stage, texts in _STAGES.items() for name, text in texts.items()}
