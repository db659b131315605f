"""Memberships, stored as Roaring bitmaps."""
