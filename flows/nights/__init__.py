"""Nights: what of a customer's place is new since the last one, cut out, delivered there, and told."""
