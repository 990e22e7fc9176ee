"""Tests of `torghut demo`."""
