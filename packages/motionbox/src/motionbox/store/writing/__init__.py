"""Writing a store so that no crash, full disk or second writer can make it lie.

`lock` (one writer), `runs` (a run and its plan), `attempt` (takes the rows of a unit; its flows go to disk at once, by
`flow_writer`), `commit` (the record that makes a unit visible, once), `failures` (what crashed or hung), `retry`
(failed videos again), `fetched_units` (committed units on their way into a snapshot), `snapshot_files`.
"""
