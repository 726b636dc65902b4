"""One run: a manifest -> work units -> workers -> commits -> a snapshot that readers read.

Planning: `plan`. One unit: `blocks` (frames with those around them), `work_unit` (frames -> flow -> maps -> raw
boxes), `unit_rows`, `worker` (from a unit's videos to its commit record). All units: `executors` (this process, or
Ray, which lives in a `ray_process`), `drive` (hand out, count faults, try again), `progress`. The end: `snapshot`
(committed units -> clips with stabilised boxes). All of this for one clip without a store: `in_memory`.
"""
