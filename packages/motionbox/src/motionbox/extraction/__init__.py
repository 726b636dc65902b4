"""One run: a manifest -> work units -> workers -> commits -> a snapshot that readers read.

Planning: `plan`. One unit: `blocks` (frames with those around them), `work_unit` (frames -> flow -> maps -> raw
boxes), `unit_rows`, `worker` (from a unit's videos to its commit record), `memory`. All units: `executors` (this
process, or Ray), `drive` (hand out, count faults, try again), `progress`. All of this for one clip without a store:
`in_memory`. The end: `snapshot` (committed units ->
clips with stabilised boxes).
"""
