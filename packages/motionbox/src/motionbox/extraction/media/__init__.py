"""Where a worker has its videos from: a folder, or a bucket by way of this machine's scratch (`fetching`)."""
