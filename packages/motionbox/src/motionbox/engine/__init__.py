"""Running a plan: `drive` hands units to an executor, a worker takes each from its videos to its commit record."""
