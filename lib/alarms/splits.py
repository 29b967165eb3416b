"""Are the splits apart? Images that are, pixel for pixel, in two of them."""

from itertools import combinations

from lib.alarms.alarm import Alarm, judge, unjudged
from lib.data import SPLITS, Dataset, Images


def data(dataset: Dataset) -> list[Alarm]:
    """Check 19: how many images of a later split (train, validation, test) are also in an earlier one, bit for bit.

    One alarm for each two splits. Splits that are read from disk are not judged: that would read every file.
    Near-duplicates are not looked for.
    """
    splits = {name: getattr(dataset, name) for name in SPLITS}
    if not all(isinstance(images, Images) for images in splits.values()):
        return [unjudged("splits", "the images are files, which are not all read for this")]
    found, seen = [], {name: _bytes(images) for name, images in splits.items()}
    for first, second in combinations(SPLITS, 2):
        known = set(seen[first])
        twice = sum(image in known for image in seen[second])
        found.append(judge("splits", twice, 0, f"images of {second} that are also in {first}, of {len(seen[second])}"))
    return found


def _bytes(images: Images) -> list[int]:
    """A hash of the pixels of each image."""
    return [hash(image.tobytes()) for image in images.x.cpu().numpy()]
