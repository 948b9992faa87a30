"""Light curves: the container, readers for the files that users have, and small real examples."""

from gpkit.datasets.fleet import Fleet, read_fleet
from gpkit.datasets.light_curve import LightCurve
from gpkit.datasets.reading import read_light_curve
from gpkit.datasets.shipped import Example, example_path, list_examples, load_example
from gpkit.datasets.writing import write_csv

__all__ = [
    "Example",
    "Fleet",
    "LightCurve",
    "example_path",
    "list_examples",
    "load_example",
    "read_fleet",
    "read_light_curve",
    "write_csv",
]
