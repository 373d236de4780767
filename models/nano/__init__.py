"""The built-in pair: two small chat models with one tokenizer, made by this project from a corpus that it writes."""
