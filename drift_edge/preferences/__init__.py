"""Preference pairs: what a person chose, and files of such choices."""

from __future__ import annotations

from drift_edge.preferences.pair import PreferencePair as PreferencePair
