"""What of the users in a log leaves it: noise with a stated guarantee, and logs made safer to
share (``docs/privacy.md``).
"""
