"""Retrains models on what really happened, when the contract says so."""
