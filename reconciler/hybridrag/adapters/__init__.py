"""To the machines: secrets, and LightRAG in processes of its own."""
