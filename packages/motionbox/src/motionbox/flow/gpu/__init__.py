"""TV-L1 on a GPU: Triton kernels over batches of pairs; with the CPU engine's results.

`engine` (batches and CUDA graphs), `level` (one pyramid level), `kernels` (warp and iteration), `tile` (pixels in
registers), `median`.
"""
