"""Meters that sample physical quantities, and pure numbers derived from events."""
