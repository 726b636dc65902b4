"""Reading a store. `store` opens it: the run, its newest snapshot, and all that a program asks of it.

`tables` says which rows of a snapshot are a clip's, `clips` reads its frames in colour out of the units' files, which
`ahead` fetches before they are asked for where these lie in a bucket. Maps, flow and
areas are read by `unit_arrays` and the room `areas` beside this one.
"""
