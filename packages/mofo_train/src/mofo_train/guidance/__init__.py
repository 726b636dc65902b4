"""Boxes -> inside tokens -> masks, and what mixing clips does to them."""
