"""Flow -> motion map -> contours -> boxes: MOFO section 3.1, and ours.

`maps` (equation 1 and its variants), `photometric` (which motion the frames themselves bear out), `contours`
(smoothed map -> frame box), `evidence` (where a clip moves, over time), `areas` (per frame and cell, how strongly it
belongs to the action), `area_parts` (the same for long clips), `area_quality` (confidence), `clip_boxes` (boxes of a
clip from the maps of all its frames), `boxes` (xyxy algebra; NumPy only, trainers import it).
"""
