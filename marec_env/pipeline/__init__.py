"""marec_env.pipeline"""
