"""Motion areas: how they become bytes (`blocks`), and reading them (`reader`) from mapped files (`files`)."""
