"""The generated data sets, with exact boxes and masks.

Kitchen videos that this package draws (here), things laid over real footage (`over_footage`), and Meta-World
(`metaworld`). In the kitchen a hand comes into a shaky view of a table from above and moves, lifts, turns, shakes or
opens one of the objects. The verb is told by motion alone, the noun by appearance alone. All follows from a seed.
"""

from motionbox.synthetic.actions import VERBS
from motionbox.synthetic.plan import ClipPlan, SyntheticConfig, plan_clips
from motionbox.synthetic.props import NOUNS
from motionbox.synthetic.scene import RenderedClip, render_clip
from motionbox.synthetic.writer import SyntheticSet, draw_clip, write_dataset

__all__ = [
    "NOUNS",
    "VERBS",
    "ClipPlan",
    "RenderedClip",
    "SyntheticConfig",
    "SyntheticSet",
    "draw_clip",
    "plan_clips",
    "render_clip",
    "write_dataset",
]
