"""Memberships as Roaring bitmaps."""
