"""How good it is: boxes against annotated boxes, flow against known flow and other engines, and how fast both are.

Boxes: `annotations` (other projects' forms of truth), `box_metrics` (one clip against its truth), `score_tables`
(many clips and methods), `box_bench` (presets against each other). Flow: `known_flow` (pairs with a true flow),
`flow_bench`, `gpu_bench`, and `box_agreement` (what a quicker flow costs in boxes).
"""
