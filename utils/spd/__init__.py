"""Stochastic parameter decomposition: components, gates, losses, training, and how to judge what comes out."""
