"""Writing a store so that no crash, full disk or second writer can make it lie.

`durable` and `failpoints` (bytes on disk, and where tests break that), `lock` (one writer), `runs` (a run and its
plan), `flow_writer` and `clip_coder` (what a unit leaves as it goes), `commit` (the record that makes a unit
visible, once), `failures`, `snapshot_files`.
"""
