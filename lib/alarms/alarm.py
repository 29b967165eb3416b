"""What an alarm is, what each one means, and what to do when it sounds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Alarm:
    """The result of one check: it passes if value <= limit.

    passed: None where the check could not be judged; `note` then says why, and otherwise what was seen.
    meaning: what it means if the check fails. remedy: what to do then.
    """

    name: str
    passed: bool | None
    value: float
    limit: float
    meaning: str
    remedy: str
    note: str = ""

    @property
    def verdict(self) -> str:
        """'pass', 'ALARM' or 'not judged'."""
        return {True: "pass", False: "ALARM", None: "not judged"}[self.passed]


# name: (meaning, remedy), in the order in which `inspect` reports them.
CHECKS = {
    "state": ("The attack met a model that was in train mode, not frozen or not float32, or it left a trace in it.",
              "Attack inside `attacks.under_attack`, in float32; look for a module that ignores eval()."),
    "determinism": ("The same images give other logits at each call: gradients and accuracies are random.",
                    "Average the gradient over the randomness in each step (EOT), and report mean and spread."),
    "batch": ("The logits of an image depend on its neighbours in the batch, as in BatchNorm left in train mode.",
              "Call eval(), and let no layer use statistics of the batch; accuracies measured so far are void."),
    "logits": ("The model returns probabilities: cross-entropy takes a second softmax, and its gradient fades.",
               "Return logits; take the softmax outside of the model."),
    "classes": ("The number of outputs is not the number of classes: attacks optimise outputs that decide nothing.",
                "Put the step that turns outputs into classes inside the model, and attack that."),
    "eps-zero": ("With eps = 0 an attack changes the images: it measures another threat model.",
                 "Look for a missing projection, or a second scaling of the images."),
    "in-ball": ("Adversarial examples leave the ball or [0, 1], or are NaN or not float32.",
                "Project after each step, in the units of the images before normalisation."),
    "zero-gradient-ce": ("The gradient of the cross-entropy is zero for many images: PGD does not move them.",
                         "Attack with the margin loss or rescaled logits, and repair the layer that is named."),
    "zero-gradient-margin": ("Even the margin, which cannot saturate, has no gradient: a layer blocks it.",
                             "Replace the layer that is named by a smooth one in the backward pass (BPDA)."),
    "finite-gradient": ("Some gradients are infinite, NaN or astronomically large: their direction is arbitrary.",
                        "Look for a division by zero, or for an activation far too steep."),
    "loss": ("Another loss, or the same on rescaled logits, fools more images: the cross-entropy misses or is masked.",
             "Report the worst case over both losses for each image; attack logits divided by their scale."),
    "ordering": ("An attack with more work fools fewer images: its gradients mislead it.",
                 "Look at step size and gradients; believe no accuracy until the order is right."),
    "fgsm": ("One step fools more than many: gradient masking or, after training by FGSM, catastrophic overfitting.",
             "Train with several steps or from a random start; report PGD, never FGSM alone."),
    "black-box": ("An attack without gradients fools images that no attack with gradients does: they are masked.",
                  "Report the worst case over both, and find out what hides the gradient."),
    "steps": ("Twice the steps fool more images: the attack was stopped too early.",
              "Double the steps until the accuracy stays."),
    "rising": ("The loss still rises at the last steps, or did not rise at all: the attack has not converged.",
               "More steps or another step size; if the loss never rose, see the checks of the gradient."),
    "sweep": ("A larger ball leaves more images right: impossible for a working attack.",
              "Look at step size and gradients at the larger radius."),
    "large-eps": ("Images survive although any image is allowed: the attack is broken, not the model robust.",
                  "Find out why before any number is reported: gradients, projection, constant outputs."),
    "silent-success": ("The attack passed through adversarial examples and returned others that fail.",
                       "Count an image as fooled if any iterate fools it."),
    "transfer": ("Examples made on another model fool images that attacks on this one do not: it masks its gradients.",
                 "Report the worst case over both, and find out what hides the gradient."),
}


def judge(name: str, value: float, limit: float, note: str = "") -> Alarm:
    """The alarm of check `name` for a value that must not exceed its limit. NaN fails."""
    return Alarm(name, bool(value <= limit), float(value), float(limit), *CHECKS[name], note)


def unjudged(name: str, reason: str) -> Alarm:
    """The alarm of a check that could not be made, and why."""
    return Alarm(name, None, float("nan"), float("nan"), *CHECKS[name], reason)
