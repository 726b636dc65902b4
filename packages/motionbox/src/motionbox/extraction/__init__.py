"""One run: a manifest -> work units -> workers -> commits -> a snapshot that readers read.

Planning: `plan`. One unit, one way: `worker` takes frames from a decoder, `blocks` adds those around them, `work_unit`
makes rows of them (flow -> maps -> raw boxes), and an `Attempt` of the store takes the rows and commits them;
`time_spent` says where the time went. All units: `executors` (this process, or
Ray, which lives in a `ray_process`), `drive` (hand out, count faults, try again), `progress`. The end: `snapshot`
(committed units -> clips with stabilised boxes). All of this for one clip without a store: `in_memory`.
"""
