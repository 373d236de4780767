"""The server's tests need its extra, and OpenAI's client."""

from importlib.util import find_spec

collect_ignore_glob = [] if all(map(find_spec, ("fastapi", "uvicorn", "openai"))) else ["test_*.py"]
