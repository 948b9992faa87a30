"""Tests of gpkit; they mirror the package. Shared helpers are imported as `from tests.realdata import ...`."""
