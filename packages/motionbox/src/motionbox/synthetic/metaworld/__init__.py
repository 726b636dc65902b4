"""Meta-World: a robot arm handles things that others drew; exact masks of what moves, verbs told by motion alone.

Meta-World (Yu et al., CoRL 2019; package `metaworld`, MIT licence) has 50 tasks in MuJoCo with scripted policies that
solve them. It is needed to render a set, not to read one.
"""

from motionbox.synthetic.metaworld.plan import MetaWorldConfig
from motionbox.synthetic.metaworld.writer import MetaWorldSet, write_metaworld_set

__all__ = ["MetaWorldConfig", "MetaWorldSet", "write_metaworld_set"]
