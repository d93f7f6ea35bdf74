"""The leaderboard: every way to deal with biased labels, on worlds whose truth is known."""
