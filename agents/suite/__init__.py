"""The suite ``marec/suite-v0``: tasks in each of which one ability pays; a leaderboard."""
