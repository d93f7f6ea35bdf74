"""Leaderboard: methods for biased labels, scored where the true classes are known."""
