"""marec_env.data"""
