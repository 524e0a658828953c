"""marec_env.evaluation"""
