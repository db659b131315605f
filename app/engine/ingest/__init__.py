"""Loads files into the lake."""
