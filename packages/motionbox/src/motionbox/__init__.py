"""Finds where the motion is in every video of a data set.

The package reads like its pipeline: `manifest` -> `video` -> `flow` -> `motion` -> `contours` -> `boxes` -> `store`;
`pipeline` runs it on one work unit and `engine` runs it on a data set. Importing the package loads none of them.
"""

__version__ = "0.1.0"
