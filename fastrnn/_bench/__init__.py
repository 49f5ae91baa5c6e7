"""Compares fastrnn with other engines: `fastrnn bench` for one shape, and the suite in bench/ of the source tree."""
