"""What every room may use: errors, clock, signed envelopes, hash chains, configuration, paths, logging."""
