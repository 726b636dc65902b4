"""TV-L1 on the CPU: numba kernels that compile to vector instructions of the user's machine.

`engine` (workspace and order of the kernels), `warp` (pyramid, gradients, warping), `kernels` (the iteration),
`median`, `simd` (a vector of 16 floats), `compiling` (options and machine code on disk), `peak` (how fast the
arithmetic could be).
"""
