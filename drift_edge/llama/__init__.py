"""The only room that imports llama_cpp; another binding would replace just this."""
