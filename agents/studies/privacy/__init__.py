"""What an attacker learns of users from what a recommender knows and shows, and what noise costs:
``python evaluate.py privacy``.
"""
