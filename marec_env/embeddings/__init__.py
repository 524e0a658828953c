"""marec_env.embeddings"""
