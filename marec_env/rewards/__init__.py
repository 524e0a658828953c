"""marec_env.rewards"""
