"""How much, exactly, across all workers: rate, concurrency and quota in one shared table."""
