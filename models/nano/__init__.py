"""The built-in pair: a 5.6 M and a 0.8 M Llama-architecture chat model, made from a corpus that the project generates."""
