"""Tests: one folder per package, plus the guards over the whole repository."""
