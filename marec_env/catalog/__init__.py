"""marec_env.catalog"""
