"""Finds where the motion is in every video of a data set.

The package reads like its pipeline: `manifest` -> `video` -> `flow` -> `motion` -> `contours` -> `boxes` -> `store`;
`pipeline` runs it on one work unit, `engine` on a data set, and `pictures` shows what came out. Importing the package
loads none of them.
"""

__version__ = "0.1.0"
