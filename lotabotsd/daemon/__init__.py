"""The parts put together: the only place that names concrete ones."""
