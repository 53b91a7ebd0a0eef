"""Milvus: the vectors of a LightRAG database in three collections of its own."""
