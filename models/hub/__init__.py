"""Model files from the Hugging Face hub, and the cache on disk that is shared with other programs."""
