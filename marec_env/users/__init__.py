"""marec_env.users"""
